-- A payrelay receiver as a skynet service, over a listener that speaks skynet's packets: `--tcp u16be@ADDR`.
--
--     skynet.newservice("skynet_receiver", HOST, PORT, CLIENT, STATE_FILE)
--
-- A token, where one is needed, is `payrelay_token` in skynet's config, which may be "$PAYRELAY_TOKEN"; as an argument
-- of the service, the launcher would log it. Prints each payment once, as it came. Put your own work into work().
--
-- Fields are read with patterns. That is sound because payrelay writes them in a fixed order, the sender's own text
-- last, and what stands before `accepted_at` cannot hold a quotation mark.
local skynet = require "skynet"
local socket = require "skynet.socket"

local host, port, client, state_file = ...

local SLOTS, RECORD = 65536, 64 -- the largest window a node has; what is further back does not come again
-- After these the next attempt would end in the same way, or throw out the program that has our id now.
local FINAL = { replaced = true, unauthorized = true, invalid_client_id = true, bad_json = true, bad_frame = true,
  line_too_long = true, hello_required = true }

-- Until this returns, the payment is not acknowledged; if it fails, it comes again on a new connection.
-- It may call other services: meanwhile the heartbeat goes on.
local function work(packet)
  assert(io.stdout:write(packet, "\n"))
  assert(io.stdout:flush())
end

-- Which payments are done: a file in which each has the place of its seq. A crash between work and keep does one
-- payment twice, and so may a power cut, for plain Lua has no fsync. Where the work is a database transaction, let
-- keep be an INSERT of the same transaction, under a unique key of these three columns; then nothing is done twice.
local memory

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

-- A packet is its length, two bytes big-endian, and then that many bytes of JSON.
local function send(id, packet)
  socket.write(id, string.pack(">s2", packet))
end

local function receive(id)
  local length = socket.read(id, 2)
  return length and socket.read(id, (string.unpack(">I2", length)))
end

-- A read in skynet has no time limit, so a coroutine beside it counts the silence, and ends the read where it must.
local function watch(id, this, heartbeat)
  local silent = 0
  while true do
    this.heard = false
    skynet.sleep(heartbeat * 100)
    if not this.open then return end
    silent = (this.heard or this.working) and 0 or silent + 1
    if silent == 3 then return socket.shutdown(id) end
    send(id, '{"type":"ping"}')
  end
end

local function handle(id, this, packet)
  local kind = packet:match '^{"type":"(%a+)"'
  if kind == "payment" then
    local seq, accepted_at = packet:match '^{"type":"payment","seq":(%d+),.-"accepted_at":(%d+)'
    this.working = true
    if not holds(this.epoch, seq, accepted_at) then
      work(packet)
      keep(this.epoch, seq, accepted_at)
    end
    this.working = false
    send(id, '{"type":"ack","seq":' .. seq .. "}") -- a repeat too: its ack was lost
  elseif kind == "welcome" then
    this.epoch = packet:match '"epoch":(%d+)'
    skynet.fork(watch, id, this, tonumber(packet:match '"heartbeat":(%d+)'))
  elseif kind == "ping" then
    send(id, '{"type":"pong"}')
  elseif kind == "error" then
    skynet.error("payrelay: " .. packet)
    this.final = FINAL[packet:match '"code":"([%w_]+)"']
  end
end

-- One connection; returns true when no other one shall be tried.
local function session()
  local id, why = socket.open(host, tonumber(port))
  if not id then return skynet.error("payrelay: " .. tostring(why)) end
  local token = skynet.getenv "payrelay_token"
  send(id, '{"type":"hello","client":"' .. client .. '"' .. (token and ',"token":"' .. token .. '"' or "") .. "}")
  local this = { open = true }
  skynet.timeout(1000, function()
    if this.open and not this.epoch then socket.shutdown(id) end
  end)
  -- Caught, for an error would end this coroutine and leave a connection that is alive and takes nothing.
  local ok, fault = pcall(function()
    local packet = receive(id)
    while packet do
      this.heard = true
      handle(id, this, packet)
      packet = receive(id)
    end
  end)
  skynet.error("payrelay: " .. (ok and "the connection is over" or tostring(fault)))
  this.open = false
  socket.close(id)
  return this.final
end

local function run()
  local pause = 0.2
  while true do
    local began = skynet.now()
    if session() then return skynet.exit() end
    if skynet.now() - began > 1000 then pause = 0.2 end
    skynet.sleep(math.ceil(pause * (50 + 50 * math.random()))) -- at random, so that not all come at once
    pause = math.min(pause * 2, 5)
  end
end

skynet.start(function()
  memory = io.open(state_file, "r+b") or assert(io.open(state_file, "w+b"))
  skynet.fork(run) -- apart, for newservice returns only when this function does
end)
