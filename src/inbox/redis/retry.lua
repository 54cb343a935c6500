-- Puts a dead letter back into its client's inbox, as a new payment without expiry.
-- KEYS 1 state  2 inbox  3 dead letters  4 their order  5 their words    ARGV 1 seq  2 dedup window, ms
-- Says {'retried', seq, accepted_at, owner, entry}, {'kept', status}, or {'none'} where it never was a dead letter.
local s, now = load_state(redis.call('GET', KEYS[1])), now_ms()
local letter = s and redis.call('HGET', KEYS[3], ARGV[1])
if not letter then return { 'none' } end
local status = letter_status(letter)
if status ~= 'refused' and status ~= 'expired' then return { 'kept', status } end
find_newest(s, KEYS[2])
redis.call('ZCARD', KEYS[4])
forget_words(KEYS[3], KEYS[5], now, tonumber(ARGV[2]), s.acked)
local entry = letter_entry(letter)
local size = parcel_bytes(entry)
local parcel, previous_at = string.sub(entry, -size), s.last_at
s.last = whole(tonumber(s.last) + 1)
s.last_at = whole(math.max(now, tonumber(s.last_at)))
-- It counted before and counts now: what is gone is its old place.
s.bytes_in, s.bytes_gone = whole(tonumber(s.bytes_in) + size), whole(tonumber(s.bytes_gone) + size)
s.gone = whole(tonumber(s.gone) + 1)
entry = table.concat({ s.last, s.last_at, '0', s.bytes_in, parcel }, ' ')
redis.call('RPUSH', KEYS[2], entry)
redis.call('HSET', KEYS[3], ARGV[1], 'retried ' .. whole(now) .. ' ' .. s.last)
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('RPUSH', KEYS[5], whole(now) .. ' ' .. ARGV[1])
save_state(KEYS[1], s)
if s.owner ~= '-' then
  publish(channel_prefix .. string.match(s.owner, '^[^/]+'),
    table.concat({ 'doorbell', string.match(KEYS[1], '{(.*)}'), previous_at, '0', entry }, ' '))
end
return { 'retried', s.last, s.last_at, s.owner, entry }
