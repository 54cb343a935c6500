-- Puts payments into their clients' inboxes, in their order, each once.
-- KEYS state and inbox of each, and then the payment ids, in that order, of those that have one
-- ARGV 1 now (ms, Redis' clock)  2 this node/boot  3 dedup window, ms; then four of each payment:
--      guess  what this node thinks its client's state to be, or ''
--      next   what accepting it makes of that
--      entry  what then enters the inbox; without a guess, the parcel alone
--      asks   'fingerprint life awaited', or '' for none of them: '-' without a payment id; '-', or ms until it expires;
--             '1' where this node waits for the receipt
-- Before it stand most_payments, most_bytes (of parcels) and channel_prefix: an argument costs more than a constant.
-- Says of each '' (accepted as guessed), 'accepted previous_at state', 'duplicate seq at status owner' (the status as
-- in look_up.lua), 'full', 'reused', or 'error why'.
--
-- Accepting is a sum over the state and the clock. A node that knows the state does the sum itself, and has it stored
-- if the state is that indeed: this costs Redis half. For all else there is accept().
local now, me, window = ARGV[1], ARGV[2], ARGV[3]
local mine, this_node = ' ' .. me, string.match(me, '^[^/]+')

-- Another key of the same client, with the same hash tag; only what is rare pays for its name.
local function beside(state_key, name) return string.sub(state_key, 1, -6) .. name end

-- Has this node hear of the end of a payment. Returns what the state is from acked on.
local function wait_for(state_key, rest, seq)
  local key, field = beside(state_key, 'beside'), 'wait:' .. seq
  local nodes = redis.call('HGET', key, field)
  if not nodes then
    redis.call('HSET', key, field, this_node)
    local before, waits, after = string.match(rest, '^(%d+ %d+ %d+ %d+ %d+) (%d+) (.*)$')
    rest = string.format('%s %.0f %s', before, waits + 1, after)
  elseif not string.find(' ' .. nodes .. ' ', ' ' .. this_node .. ' ', 1, true) then
    redis.call('HSET', key, field, nodes .. ' ' .. this_node)
  end
  return rest
end

-- When a client was first seen.
local function born_at(state) return string.match(state, '^2 %d+ %d+ %d+ %d+ %d+ %d+ %d+ %d+ %d+ (%d+)') end

local function remember(id, seq_at, born, print)
  redis.call('SET', id, seq_at .. ' ' .. born .. ' ' .. print, 'PX', window)
end

-- Rings at the node that holds the client, where that is another one.
local function ring(state_key, last_at, owner, entry, awaited)
  if owner == me or owner == '-' then return end
  -- Only a hint: that it cannot be sent must not make a stored payment look refused.
  redis.pcall('PUBLISH', channel_prefix .. string.match(owner, '^[^/]+'),
    table.concat({ 'doorbell', string.match(state_key, '{(.*)}'), last_at, awaited, entry }, ' '))
end

local function accept(state_key, inbox, id, text, parcel, print, life, awaited)
  text = text or '2 0 0 0 0 0 0 0 0 0 ' .. now .. ' ' .. now .. ' 0 - -'
  local last, last_at, bytes_in, rest_at, gone, bytes_gone, owner =
    string.match(text, '^2 (%d+) (%d+) (%d+) ()%d+ (%d+) (%d+) %d+ %d+ %d+ %d+ %d+ %d+ %S+ (%S+)$')
  if not owner then error('the state of a client is not readable') end
  -- Acceptance changes nothing of it but how many wait.
  local rest = string.sub(text, rest_at)
  local born = id and born_at(text)
  if id then
    local seq, at, life_of, print_of = string.match(redis.call('GET', id) or '', '^(%d+) (%d+) (%d+) (%x+)$')
    -- One of an earlier life of this client, or of writes that the store lost, counts no more.
    if life_of == born and tonumber(seq) <= tonumber(last) then
      if print_of ~= print then return 'reused' end
      local acked = string.match(rest, '^%d+')
      local status = tonumber(seq) <= tonumber(acked) and 'acknowledged' or 'accepted'
      local letter = redis.call('HGET', beside(state_key, 'dead'), seq)
      if letter then
        status = string.match(letter, '^(%a+)')
        if status == 'retried' then status = status .. '/' .. string.match(letter, ' (%d+)$') end
      elseif status == 'accepted' then
        local entry = redis.call('LINDEX', inbox, string.format('%.0f', seq - acked - 1))
        local expires_at = tonumber(string.match(entry or '', '^%d+ %d+ (%d+)') or 0)
        if expires_at > 0 and expires_at <= tonumber(now) then status = 'due' end
      end
      if (status == 'accepted' or status == 'due') and awaited == '1' then
        redis.call('SET', state_key, string.sub(text, 1, rest_at - 1) .. wait_for(state_key, rest, seq))
      end
      return 'duplicate ' .. seq .. ' ' .. at .. ' ' .. status .. ' ' .. owner
    end
  end
  if last - gone >= most_payments or bytes_in - bytes_gone + #parcel > most_bytes then return 'full' end

  local at = tonumber(now) > tonumber(last_at) and now or last_at
  local seq_at = string.format('%.0f %s', last + 1, at)
  bytes_in = string.format('%.0f', bytes_in + #parcel)
  local expires_at = life == '-' and '0' or string.format('%.0f', at + life)
  local entry = seq_at .. ' ' .. expires_at .. ' ' .. bytes_in .. ' ' .. parcel
  -- What can fail for a wrong type comes first: then nothing has changed.
  if awaited == '1' then
    redis.call('LLEN', inbox)
    rest = wait_for(state_key, rest, string.format('%.0f', last + 1))
  end
  redis.call('RPUSH', inbox, entry)
  text = '2 ' .. seq_at .. ' ' .. bytes_in .. ' ' .. rest
  redis.call('SET', state_key, text)
  if id then remember(id, seq_at, born, print) end
  ring(state_key, last_at, owner, entry, awaited)
  return 'accepted ' .. last_at .. ' ' .. text
end

local function put(i, id, print, life, awaited)
  local guess, entry, state_key, inbox = ARGV[4 * i], ARGV[4 * i + 2], KEYS[2 * i - 1], KEYS[2 * i]
  local state = redis.call('GET', state_key)
  if guess == '' or state ~= guess or (id and redis.call('GET', id)) then
    local parcel_at = guess == '' and 1 or string.match(entry, '^%d+ %d+ %d+ %d+ ()')
    return accept(state_key, inbox, id, state, string.sub(entry, parcel_at), print, life, awaited)
  end
  redis.call('RPUSH', inbox, entry)
  redis.call('SET', state_key, ARGV[4 * i + 1])
  if id then remember(id, string.match(entry, '^%d+ %d+'), born_at(state), print) end
  if string.sub(state, -#mine) ~= mine then
    local last_at, owner = string.match(state, '^2 %d+ (%d+) .* (%S+)$')
    ring(state_key, last_at, owner, entry, awaited)
  end
  return ''
end

local count, replies = (#ARGV - 3) / 4, {}
local ids = 2 * count
for i = 1, count do
  local asks, id = ARGV[4 * i + 3], nil
  local print, life, awaited = '-', '-', '0'
  if asks ~= '' then print, life, awaited = string.match(asks, '^(%S+) (%S+) (%S+)$') end
  if print ~= '-' then
    ids = ids + 1
    id = KEYS[ids]
  end
  replies[i] = alone(pcall(put, i, id, print, life, awaited))
end
return replies
