// Owns files of settings, and what systemd makes of each: of its usual lines, and of its oddities.

export const ENVIRONMENT_FILES: [text: string, expected: Record<string, string>][] = [
  ['PORT=80', { PORT: '80' }],
  ['PORT=80\nHOST=::1\n', { PORT: '80', HOST: '::1' }],
  ['  PORT = 80  \r\n\n\tHOST=::1', { PORT: '80', HOST: '::1' }],
  ['# PORT=1\n;PORT=2\nPORT=3', { PORT: '3' }],
  ['# goes on \\\nPORT=1\nHOST=::1', { HOST: '::1' }],
  ['PORT\nHOST=::1', { HOST: '::1' }],
  ['PORT=\nHOST=::1', { PORT: '', HOST: '::1' }],
  ['PORT=1\nPORT=2', { PORT: '2' }],
  ['1PORT=1\nPO RT=2\nexport PORT=3', {}],
  ['URL=smtp://a:b#c@d e;f', { URL: 'smtp://a:b#c@d e;f' }],
  ['A="b c "', { A: 'b c ' }],
  [`A='b "c" \\n'`, { A: 'b "c" \\n' }],
  ['A="b\nc"\nB=d', { A: 'b\nc', B: 'd' }],
  ['A="\\" \\\\ \\$ \\` \\n \\\nx"', { A: '" \\ $ ` \\n x' }],
  [`A="b" 'c' d"e"`, { A: 'bcd"e"' }],
  ['A=b"c" \'d\'', { A: `b"c" 'd'` }],
  ['A=b\\\nc\\ \nB=d', { A: 'bc ', B: 'd' }],
  ['A=b\\x\\\\', { A: 'bx\\' }],
  ['A==b=', { A: '=b=' }],
  ['', {}],
]
