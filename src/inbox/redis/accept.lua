-- Puts payments into their clients' inboxes, in their order, each once.
-- KEYS state and inbox of each, and then the payment ids, in that order, of those that have one
-- ARGV 1 now (ms, Redis' clock)  2 this node/boot  3 dedup window, ms; then four of each payment:
--      guess  what this node thinks its client's state to be, or ''
--      newest what it thinks the inbox's last entry to begin with, up to the parcel; '' where it thinks it empty
--      entry  what then enters the inbox; without a guess, the parcel alone
--      asks   'fingerprint life awaited', or '' for none of them: '-' without a payment id; '-', or ms until it expires;
--             '1' where this node waits for the receipt
-- Before it stand most_payments, most_bytes (of parcels) and channel_prefix: an argument costs more than a constant.
-- Says of each '' (accepted as guessed), 'accepted previous_at seq accepted_at expires_at bytes state' (the numbers are
-- the new entry's), 'duplicate seq at status owner' (the status as in look_up.lua), 'full', 'reused', or 'error why'.
--
-- Accepting is a sum over the state, the newest payment and the clock. A node that knows them does the sum itself, and
-- has it stored if they are that indeed: this costs Redis half. For all else there is accept().
local now, me, window = ARGV[1], ARGV[2], ARGV[3]
local mine, this_node = ' ' .. me, string.match(me, '^[^/]+')

-- Another key of the same client, with the same hash tag; only what is rare pays for its name.
local function beside(state_key, name) return string.sub(state_key, 1, -6) .. name end

-- Has this node hear of the end of a payment. Returns what the state is then.
local function wait_for(state_key, state, seq)
  local key, field = beside(state_key, 'beside'), 'wait:' .. seq
  local nodes = redis.call('HGET', key, field)
  if not nodes then
    redis.call('HSET', key, field, this_node)
    local before, waits, after = string.match(state, '^(3 %d+ %d+ %d+ %d+ %d+ %d+) (%d+) (.*)$')
    state = string.format('%s %.0f %s', before, waits + 1, after)
    redis.call('SET', state_key, state)
  elseif not string.find(' ' .. nodes .. ' ', ' ' .. this_node .. ' ', 1, true) then
    redis.call('HSET', key, field, nodes .. ' ' .. this_node)
  end
  return state
end

-- When a client was first seen.
local function born_at(state) return string.match(state, '^3 %d+ %d+ %d+ %d+ %d+ %d+ %d+ (%d+)') end

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
  local state = text or '3 0 0 0 0 0 0 0 ' .. now .. ' ' .. now .. ' 0 - -'
  local acked, acked_at, bytes_acked, gone, bytes_gone, tombs, owner =
    string.match(state, '^3 (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) %d+ %d+ %d+ %d+ %S+ (%S+)$')
  if not owner then error('the state of a client is not readable') end
  local last, last_at, bytes_in = acked, acked_at, bytes_acked
  local count, newest = redis.call('LLEN', inbox), redis.call('LINDEX', inbox, '-1')
  if newest then last, last_at, bytes_in = string.match(newest, '^(%d+) (%d+) %S+ (%d+) ') end
  if not last or last - acked ~= count or count < tonumber(tombs) then
    error('an inbox holds what is no payment, or not as many as it should')
  end
  local born = id and born_at(state)
  if id then
    local seq, at, life_of, print_of = string.match(redis.call('GET', id) or '', '^(%d+) (%d+) (%d+) (%x+)$')
    local known = life_of == born and tonumber(seq) <= tonumber(last)
    local entry = known and tonumber(seq) > tonumber(acked)
      and redis.call('LINDEX', inbox, string.format('%.0f', seq - acked - 1))
    -- One of an earlier life of this client, or of writes that the store lost, counts no more.
    if known and (not entry or string.match(entry, '^%d+ (%d+)') == at) then
      if print_of ~= print then return 'reused' end
      local status = tonumber(seq) <= tonumber(acked) and 'acknowledged' or 'accepted'
      local letter = redis.call('HGET', beside(state_key, 'dead'), seq)
      if letter then
        status = string.match(letter, '^(%a+)')
        if status == 'retried' then status = status .. '/' .. string.match(letter, ' (%d+)$') end
      elseif status == 'accepted' then
        local expires_at = tonumber(string.match(entry or '', '^%d+ %d+ (%d+)') or 0)
        if expires_at > 0 and expires_at <= tonumber(now) then status = 'due' end
      end
      if (status == 'accepted' or status == 'due') and awaited == '1' then
        wait_for(state_key, state, seq)
      end
      return 'duplicate ' .. seq .. ' ' .. at .. ' ' .. status .. ' ' .. owner
    end
  end
  if last - gone >= most_payments or bytes_in - bytes_gone + #parcel > most_bytes then return 'full' end

  local at = tonumber(now) > tonumber(last_at) and now or last_at
  local seq_at = string.format('%.0f %s', last + 1, at)
  local expires_at = life == '-' and '0' or string.format('%.0f', at + life)
  local head = string.format('%s %s %.0f ', seq_at, expires_at, bytes_in + #parcel)
  -- What can fail for a wrong type comes first: then nothing has changed.
  if awaited == '1' then state = wait_for(state_key, state, string.format('%.0f', last + 1)) end
  if not text then redis.call('SET', state_key, state) end
  redis.call('RPUSH', inbox, head .. parcel)
  if id then remember(id, seq_at, born, print) end
  ring(state_key, last_at, owner, head .. parcel, awaited)
  return 'accepted ' .. last_at .. ' ' .. head .. state
end

-- Puts an entry behind the newest one, if that is as guessed; nil where it is not, and nothing has changed.
local function append(inbox, newest, entry)
  if newest == '' then
    -- It says how many there are then: so an empty inbox need not be asked after, unless it is much to push in vain.
    if #entry > 4096 and redis.call('LLEN', inbox) > 0 then return nil end
    if redis.call('RPUSH', inbox, entry) == 1 then return true end
    redis.call('RPOP', inbox)
    return nil
  end
  if string.sub(redis.call('LINDEX', inbox, '-1') or '', 1, #newest) ~= newest then return nil end
  redis.call('RPUSH', inbox, entry)
  return true
end

local function put(i, id, print, life, awaited)
  local state_key, inbox = KEYS[2 * i - 1], KEYS[2 * i]
  local guess, newest, entry = ARGV[4 * i], ARGV[4 * i + 1], ARGV[4 * i + 2]
  local state = redis.call('GET', state_key)
  if guess == '' or state ~= guess or (id and redis.call('GET', id)) or not append(inbox, newest, entry) then
    local parcel_at = guess == '' and 1 or string.match(entry, '^%d+ %d+ %d+ %d+ ()')
    return accept(state_key, inbox, id, state, string.sub(entry, parcel_at), print, life, awaited)
  end
  if id then remember(id, string.match(entry, '^%d+ %d+'), born_at(state), print) end
  if string.sub(state, -#mine) ~= mine then
    local acked_at, owner = string.match(state, '^3 %d+ (%d+) .* (%S+)$')
    ring(state_key, string.match(newest, '^%d+ (%d+)') or acked_at, owner, entry, awaited)
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
