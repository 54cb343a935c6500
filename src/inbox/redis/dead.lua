-- Dead letters: how one is written. Goes before the scripts that look at them, behind state.lua.
--
-- The hash has for each seq `status dead_at maybe_delivered length reason entry`, and of one that is held no more
-- `purged at` or `retried at seq`. The seqs of those that are held are in a sorted set, so that they can be listed in
-- order; those of the others in a list, `at seq`, oldest first: the dedup window long they are remembered.

local function letter_status(letter)
  local status = string.match(letter, '^(%a+) %d+')
  if not status then error('a dead letter is not readable') end
  if status == 'retried' then return status .. '/' .. string.match(letter, '(%d+)$') end
  return status
end

-- Forgets some of what is remembered long enough, and lies before what is not acknowledged: a place in the inbox says
-- nothing by itself.
local function forget_words(dead, words, now, window, acked)
  for _, word in ipairs(redis.call('LRANGE', words, 0, 63)) do
    local at, seq = string.match(word, '^(%d+) (%d+)$')
    if not at then error('the words for dead letters are not readable') end
    if tonumber(at) + window > now then return end
    if tonumber(seq) <= tonumber(acked) then
      redis.call('HDEL', dead, seq)
    else
      redis.call('RPUSH', words, whole(now) .. ' ' .. seq)
    end
    redis.call('LPOP', words)
  end
end

-- The entry within a letter that is held.
local function letter_entry(letter)
  local length, from = string.match(letter, '^%a+ %d+ %d (%d+) ()')
  if not length then error('a dead letter is not readable') end
  return string.sub(letter, from + length + 1)
end
