// Owns what a seeded bug is.

export interface SeededBug {
  name: string
  /** Each `find` stands exactly once in its file. */
  edits: { file: string; find: string; replace: string }[]
  test: string
  /** The name of the tests in that file that notice. */
  notices: string
  /** One that is tried with every `make test`. */
  isAlways?: boolean
}
