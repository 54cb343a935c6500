-- Throws a dead letter away.
-- KEYS 1 state  2 dead letters  3 their order  4 their words    ARGV 1 seq  2 dedup window, ms
-- Says 'purged' or 'kept status', 'none' where it never was a dead letter.
local s, now = load_state(redis.call('GET', KEYS[1])), now_ms()
local letter = s and redis.call('HGET', KEYS[2], ARGV[1])
if not letter then return 'none' end
local status = letter_status(letter)
if status ~= 'refused' and status ~= 'expired' then return 'kept ' .. status end
redis.call('ZCARD', KEYS[3])
forget_words(KEYS[2], KEYS[4], now, tonumber(ARGV[2]), s.acked)
redis.call('HSET', KEYS[2], ARGV[1], 'purged ' .. whole(now))
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('RPUSH', KEYS[4], whole(now) .. ' ' .. ARGV[1])
s.gone = whole(tonumber(s.gone) + 1)
s.bytes_gone = whole(tonumber(s.bytes_gone) + parcel_bytes(letter_entry(letter)))
save_state(KEYS[1], s)
return 'purged'
