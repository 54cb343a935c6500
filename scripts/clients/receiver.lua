-- A payrelay receiver in Lua 5.1 to 5.4 or LuaJIT, with LuaSocket.
--
--     lua receiver.lua HOST PORT CLIENT STATE_FILE        a token, where one is needed, in PAYRELAY_TOKEN
--
-- Prints each payment once, as the line that came. Put your own work into work().
--
-- Fields are read with patterns. That is sound because payrelay writes them in a fixed order, the sender's own text
-- last, and what stands before `accepted_at` cannot hold a quotation mark.
local socket = require "socket"

local host, port, client, state_file = ...
if not state_file then
  io.stderr:write("usage: lua receiver.lua HOST PORT CLIENT STATE_FILE\n")
  os.exit(2)
end

local SLOTS, RECORD = 65536, 64 -- the largest window a node has; what is further back does not come again
-- After these the next attempt would end in the same way, or throw out the program that has our id now.
local FINAL = { replaced = true, unauthorized = true, invalid_client_id = true, bad_json = true, bad_frame = true,
  line_too_long = true, hello_required = true }

-- Until this returns, the payment is not acknowledged; if it fails, the program ends and the payment comes again.
local function work(line)
  assert(io.stdout:write(line, "\n"))
  assert(io.stdout:flush())
end

-- Which payments are done: a file in which each has the place of its seq. A crash between work and keep does one
-- payment twice, and so may a power cut, for plain Lua has no fsync. Where the work is a database transaction, let
-- keep be an INSERT of the same transaction, under a unique key of these three columns; then nothing is done twice.
local memory = io.open(state_file, "r+b") or assert(io.open(state_file, "w+b"))

-- All three: after a failover, numbers are given again to other payments.
local function record(epoch, seq, accepted_at)
  assert(memory:seek("set", tonumber(seq) % SLOTS * RECORD))
  return ("%-" .. RECORD - 1 .. "s\n"):format(epoch .. " " .. seq .. " " .. accepted_at)
end

local function holds(...)
  local wanted = record(...)
  return memory:read(RECORD) == wanted
end

local function keep(...)
  assert(memory:write(record(...)))
  assert(memory:flush())
end

-- One connection; returns why it ended, when another one shall be tried.
local function session()
  local s = socket.tcp()
  s:settimeout(10)
  local ok, why = s:connect(host, port)
  if not ok then return s, why end
  s:setoption("tcp-nodelay", true)
  -- That sending failed is not looked at: reading goes on, for the server's last line, which says why, may be there.
  local function send(frame) s:send(frame .. "\n") end

  local token = os.getenv "PAYRELAY_TOKEN"
  send('{"type":"hello","client":"' .. client .. '"' .. (token and ',"token":"' .. token .. '"' or "") .. "}")
  local epoch, silent, part = nil, 0, ""
  while silent < 3 do
    local line, err, rest = s:receive("*l", part)
    silent = (line or #rest > #part) and 0 or silent + 1 -- half a line is a sign of life too
    part = rest or ""
    local kind = line and line:match '^{"type":"(%a+)"'
    if kind == "payment" then
      local seq, accepted_at = line:match '^{"type":"payment","seq":(%d+),.-"accepted_at":(%d+)'
      if not holds(epoch, seq, accepted_at) then
        work(line)
        keep(epoch, seq, accepted_at)
      end
      send('{"type":"ack","seq":' .. seq .. "}") -- a repeat too: its ack was lost
    elseif kind == "welcome" then
      epoch = line:match '"epoch":(%d+)'
      s:settimeout(tonumber(line:match '"heartbeat":(%d+)'))
    elseif kind == "ping" then
      send '{"type":"pong"}'
    elseif kind == "error" then
      if FINAL[line:match '"code":"([%w_]+)"'] then
        io.stderr:write(line, "\n")
        os.exit(1)
      end
      return s, line
    elseif err and (err ~= "timeout" or not epoch) then
      return s, err
    elseif err then
      send '{"type":"ping"}'
    end
  end
  return s, "nothing came for three heartbeats"
end

math.randomseed(math.floor(socket.gettime() * 1000) % 2 ^ 31)
local pause = 0.2
while true do
  local began = socket.gettime()
  local s, why = session()
  s:close()
  if socket.gettime() - began > 10 then pause = 0.2 end
  io.stderr:write(why, "; connecting again\n")
  socket.sleep(pause * (0.5 + math.random() / 2)) -- at random, so that a thousand tills do not come at once
  pause = math.min(pause * 2, 5)
end
