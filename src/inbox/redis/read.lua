-- What lies behind a place, for the session that owns the inbox.
-- KEYS 1 state  2 inbox
-- ARGV 1 token  2 session  3 epoch  4 seq  5 accepted_at  6 most payments  7 bytes after which to stop
-- Says {'slice', last, last_at, entry …}, or {'replaced'}, {'rolled_back'}.
local s = load_state(redis.call('GET', KEYS[1]))
local seq = tonumber(ARGV[4])
local no = fence(s, KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3], seq, ARGV[5])
if no then return { no } end
check_length(s, KEYS[2])
local reply = { 'slice', s.last, s.last_at }
local from = math.max(seq - tonumber(s.acked), 0)
local left, bytes, largest = tonumber(ARGV[6]), tonumber(ARGV[7]), nil
while left > 0 and bytes > 0 do
  -- One, and then as many as fit if they are no larger: large payments must not be copied only to be left out.
  local step = largest and math.max(math.min(left, 16, math.floor(bytes / largest)), 1) or 1
  local entries = redis.call('LRANGE', KEYS[2], from, from + step - 1)
  for _, entry in ipairs(entries) do
    if bytes <= 0 then break end
    reply[#reply + 1] = entry
    bytes = bytes - #entry
    largest = math.max(largest or 1, #entry)
  end
  if #entries < step then break end
  from, left = from + step, left - step
end
return reply
