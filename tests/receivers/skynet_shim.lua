-- A SHIM of skynet for the tests: just so much of `skynet` and `skynet.socket`, over LuaSocket, as
-- scripts/clients/skynet_receiver.lua uses. Nothing of skynet itself is here; what it does in these calls was read in
-- its lualib/skynet.lua and lualib/skynet/socket.lua.
--
--     lua skynet_shim.lua SERVICE.lua ARGUMENT…
local luasocket = require "socket"

local ready, sleeping, sockets = {}, {}, {}

local function start(f, ...)
  local arguments = table.pack(...)
  table.insert(ready, coroutine.create(function() f(table.unpack(arguments, 1, arguments.n)) end))
end

local skynet = { fork = start, start = start }

function skynet.now() return math.floor(luasocket.gettime() * 100) end

function skynet.error(text) io.stderr:write(text, "\n") end

-- The test's hold on a token; in skynet it is in the config.
function skynet.getenv(name) return os.getenv(name:upper()) end

-- A service that was to run for ever has ended: status 1, like the other receivers.
function skynet.exit() os.exit(1) end

function skynet.sleep(centiseconds)
  sleeping[coroutine.running()] = luasocket.gettime() + centiseconds / 100
  coroutine.yield()
end

function skynet.timeout(centiseconds, f)
  start(function()
    skynet.sleep(centiseconds)
    f()
  end)
end

local socket = {}

function socket.open(host, port)
  local s = luasocket.tcp()
  s:settimeout(10)
  local ok, why = s:connect(host, port)
  if not ok then return nil, why end
  s:setoption("tcp-nodelay", true) -- as skynet does
  table.insert(sockets, { s = s, buffer = "", connected = true })
  return #sockets
end

-- As in skynet: that many bytes, or false and what there was when the connection ended.
function socket.read(id, size)
  local this = sockets[id]
  while #this.buffer < size do
    if not this.connected then return false, this.buffer end
    this.reader = coroutine.running()
    coroutine.yield()
  end
  local bytes = this.buffer:sub(1, size)
  this.buffer = this.buffer:sub(size + 1)
  return bytes
end

function socket.write(id, bytes)
  local this = sockets[id]
  this.s:settimeout(10)
  this.s:send(bytes)
end

-- Ends a read that is under way.
function socket.shutdown(id)
  local this = sockets[id]
  this.connected = false
  if this.reader then table.insert(ready, this.reader) end
  this.reader = nil
end

function socket.close(id) sockets[id].s:close() end

package.preload["skynet"] = function() return skynet end
package.preload["skynet.socket"] = function() return socket end

local function take(this)
  this.s:settimeout(0)
  local whole, why, part = this.s:receive(65536)
  this.buffer = this.buffer .. (whole or part)
  this.connected = this.connected and why ~= "closed"
  table.insert(ready, this.reader)
  this.reader = nil
end

-- Sleeps until somebody's time has come or a socket that is being read has something.
local function wait()
  local soonest, reading = math.huge, {}
  for _, wake in pairs(sleeping) do soonest = math.min(soonest, wake) end
  for _, this in pairs(sockets) do
    if this.reader then
      table.insert(reading, this.s)
      reading[this.s] = this
    end
  end
  local limit = math.max(soonest - luasocket.gettime(), 0)
  local readable = luasocket.select(reading, nil, limit < math.huge and limit or nil)
  for _, s in ipairs(readable) do take(reading[s]) end
  for co, wake in pairs(sleeping) do
    if wake <= luasocket.gettime() then
      sleeping[co] = nil
      table.insert(ready, co)
    end
  end
end

assert(loadfile(arg[1]))(table.unpack(arg, 2))
while true do
  while #ready > 0 do
    local co = table.remove(ready, 1)
    local ok, why = coroutine.resume(co)
    -- In skynet a fault ends its coroutine only; a test wants to see it.
    if not ok then
      io.stderr:write(debug.traceback(co, why), "\n")
      os.exit(3)
    end
  end
  wait()
end
