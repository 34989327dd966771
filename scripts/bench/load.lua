-- Owns what wrk sends: the requests of a file in turn; or writes of Sync Node, each with the token that
-- the last answer gave for its store, of which the file STORES has name, key and first token. Prints one line of figures.
--   wrk ... -s load.lua URL -- cycle FILE
--   wrk ... -s load.lua URL -- tokens HEAD BODY STORES

local function read(path)
  local file = assert(io.open(path, 'rb'))
  local text = file:read('*a')
  file:close()
  return text
end

-- Each as its length on a line, and its bytes.
local function cycle(path)
  local text, requests, at = read(path), {}, 1
  while at <= #text do
    local stop = text:find('\n', at, true)
    local length = tonumber(text:sub(at, stop - 1))
    requests[#requests + 1] = text:sub(stop + 1, stop + length)
    at = stop + length + 1
  end
  local turn = 0
  function request()
    turn = turn % #requests + 1
    return requests[turn]
  end
end

-- A queue of stores that nobody is writing to: many more than there are connections.
local function tokens(head, body, stores)
  head, body = read(head), read(body)
  local names, queue, first, last = {}, {}, 1, 0
  for name, key, token in read(stores):gmatch('(%S+) (%S+) (%S+)\n') do
    names[key] = name
    last = last + 1
    queue[last] = { name, token }
  end
  function request()
    local store = queue[first]
    queue[first] = nil
    first = first + 1
    return 'PUT /store/' .. store[1] .. head .. 'X-Sync-Token: ' .. store[2] .. '\r\n\r\n' .. body
  end
  function response(_, headers)
    last = last + 1
    local key = headers['X-Sync-Key'] or headers['x-sync-key']
    queue[last] = { names[key], headers['X-Sync-Token'] or headers['x-sync-token'] }
  end
end

function init(args)
  if args[1] == 'cycle' then cycle(args[2]) else tokens(args[2], args[3], args[4]) end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"us":%d,"p50":%d,"p99":%d,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
