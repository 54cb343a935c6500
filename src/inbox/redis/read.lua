-- What lies behind a place, for the session that owns the inbox.
-- KEYS 1 state  2 inbox
-- ARGV 1 token  2 session  3 epoch  4 seq  5 accepted_at  6 most payments  7 bytes after which to stop
-- Says {'slice', last, last_at, acked, seq and accepted_at up to where it looked, the seqs that are due, entry …},
-- or {'replaced'}, {'rolled_back'}. What is due was not sent by this session, and is past its time; it and dead
-- letters are left out.
local s = load_state(redis.call('GET', KEYS[1]))
local seq = tonumber(ARGV[4])
local no = fence(s, KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3], seq, ARGV[5])
if no then return { no } end
find_newest(s, KEYS[2])
local from = math.max(seq - tonumber(s.acked), 0)
local upto, upto_at, due = ARGV[4], ARGV[5], {}
if from == 0 then upto, upto_at = s.acked, s.acked_at end
local reply = { 'slice', s.last, s.last_at, s.acked, upto, upto_at, '' }
local left, bytes, largest, now = tonumber(ARGV[6]), tonumber(ARGV[7]), nil, nil
-- Places of dead letters cost a look each: so many, and the rest next time.
local looks = 1000
while left > 0 and bytes > 0 and looks > 0 do
  -- One, and then as many as fit if they are no larger: large payments must not be copied only to be left out.
  local step = largest and math.max(math.min(left, 16, math.floor(bytes / largest)), 1) or 1
  local entries = redis.call('LRANGE', KEYS[2], from, from + step - 1)
  for _, entry in ipairs(entries) do
    if bytes <= 0 then break end
    local n, at, expires_at = string.match(entry, '^(%d+) (%d+) (%d+)')
    if not n then error('an inbox holds what is no payment') end
    reply[5], reply[6], looks = n, at, looks - 1
    largest = math.max(largest or 1, #entry)
    if expires_at ~= '0' then now = now or now_ms() end
    if is_tomb(entry) then
      -- The next one that is none decides how many are read at once.
      largest = nil
    elseif expires_at ~= '0' and tonumber(expires_at) <= now then
      due[#due + 1] = n
      bytes = bytes - 1
    else
      reply[#reply + 1] = entry
      bytes, left = bytes - #entry, left - 1
    end
  end
  if #entries < step then break end
  from = from + step
end
reply[7] = table.concat(due, ' ')
return reply
