-- Ranks a batch of claims of one campaign, in the order given. Runs behind run_id.lua.
--
-- Decides: whether the user has a coupon already (before anything else, so a repeat is answered after the window has
-- closed), whether the window is open by the server's TIME, whether the quota is used up. A claim that is ranked is
-- issued: it stays in the pending hash until its row is in MySQL.
--
-- KEYS[1]  campaign hash: quota, next (ranks given so far), opens_us, closes_us, epoch, ready, run_id (of the server on
--          which it was staged), u:<user> = rank
-- KEYS[2]  pending hash: <user> = "rank|claimed_at_us|epoch|request_id"
-- ARGV     user, request_id for each claim; at most 256 claims
--
-- Returns {now_us, epoch, outcome...}, one outcome a claim:
--   {'ranked', rank}                                          ranked now, at now_us
--   {'pending', rank, claimed_at_us, epoch, request_id}       ranked before, row not known to be stored
--   {'seen', rank}                                            ranked before, row stored
--   {'not_open'} | {'closed'} | {'sold_out'}
--   {'not_ready'}                                             the key is missing, still being staged, or was staged
--                                                             before this server began to run: it may be an earlier
--                                                             copy; epoch is 0

local campaign, pending = KEYS[1], KEYS[2]
-- The server's clock, so that the window is the same for all replicas.
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]

local state = redis.call('HMGET', campaign, 'ready', 'quota', 'next', 'opens_us', 'closes_us', 'epoch', 'run_id')
if state[1] ~= '1' or state[7] ~= RUN_ID then
  local reply = {now_us, 0}
  for _ = 1, #ARGV, 2 do
    reply[#reply + 1] = {'not_ready'}
  end
  return reply
end
local quota, next_rank = tonumber(state[2]), tonumber(state[3])
local opens_us, closes_us, epoch = tonumber(state[4]), tonumber(state[5]), tonumber(state[6])

-- One HMGET for the batch: Redis serves nobody else while the script runs.
local users = {}
for i = 1, #ARGV, 2 do
  users[#users + 1] = 'u:' .. ARGV[i]
end
local ranks = redis.call('HMGET', campaign, unpack(users))

-- Applies only to users without a rank: a repeat gets its answer after the window has closed.
local refusal
if now_us < opens_us then
  refusal = 'not_open'
elseif now_us >= closes_us then
  refusal = 'closed'
end

local outcomes = {}
local new_ranks, new_pending = {}, {}
local ranked_here, seen_fields, seen_at = {}, {}, {}
for i, known in ipairs(ranks) do
  local user, request_id = ARGV[2 * i - 1], ARGV[2 * i]
  -- The HMGET above does not see ranks given in this batch, so a user who claims twice in it is found here.
  local earlier = ranked_here[user]
  if known then
    -- Stored or pending: the pending hash says which, for all of these at once below.
    seen_fields[#seen_fields + 1] = user
    seen_at[#seen_at + 1] = i
    outcomes[i] = {'seen', tonumber(known)}
  elseif earlier then
    outcomes[i] = {'pending', earlier.rank, now_us, epoch, earlier.request_id}
  elseif refusal then
    outcomes[i] = {refusal}
  elseif next_rank >= quota then
    outcomes[i] = {'sold_out'}
  else
    next_rank = next_rank + 1
    ranked_here[user] = {rank = next_rank, request_id = request_id}
    new_ranks[#new_ranks + 1] = users[i]
    new_ranks[#new_ranks + 1] = next_rank
    new_pending[#new_pending + 1] = user
    -- %d would cut a number at 32 bits on some builds; %.0f is exact to 2^53.
    new_pending[#new_pending + 1] = string.format('%d|%.0f|%.0f|%s', next_rank, now_us, epoch, request_id)
    outcomes[i] = {'ranked', next_rank}
  end
end

if #new_ranks > 0 then
  redis.call('HSET', campaign, 'next', next_rank, unpack(new_ranks))
  redis.call('HSET', pending, unpack(new_pending))
end

if #seen_fields > 0 then
  local claims = redis.call('HMGET', pending, unpack(seen_fields))
  for j, claim in ipairs(claims) do
    -- A rank without a pending claim is stored, and stays 'seen'.
    if claim then
      local rank, claimed_at_us, claim_epoch, request_id = string.match(claim, '^(%d+)|(%d+)|(%d+)|(.*)$')
      outcomes[seen_at[j]] =
        {'pending', tonumber(rank), tonumber(claimed_at_us), tonumber(claim_epoch), request_id}
    end
  end
end

local reply = {now_us, epoch}
for i = 1, #outcomes do
  reply[#reply + 1] = outcomes[i]
end
return reply
