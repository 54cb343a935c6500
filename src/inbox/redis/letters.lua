-- The dead letters of a client, in order.
-- KEYS 1 state  2 dead letters  3 their order    ARGV 1 after this seq  2 most  3 bytes after which to stop
-- Says {'none'} for an unknown client, or {'letters', '1' if there are more, letter …}, each behind its seq.
if not load_state(redis.call('GET', KEYS[1])) then return { 'none' } end
local seqs = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf', 'LIMIT', '0', whole(tonumber(ARGV[2]) + 1))
local reply, bytes = { 'letters', '0' }, tonumber(ARGV[3])
for i, seq in ipairs(seqs) do
  if i > tonumber(ARGV[2]) or bytes <= 0 then
    reply[2] = '1'
    break
  end
  local letter = redis.call('HGET', KEYS[2], seq)
  if not letter then error('a dead letter is missing') end
  reply[#reply + 1] = letter
  bytes = bytes - #letter
end
return reply
