-- Put the expiry ttl from now; 0 when the reservation is not held.
-- KEYS: record, then account and holds of each demand.
-- ARGV: packed {now or false, id, demands, ttl}.
local given, id, demands, ttl = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local record = load(now)
if not record or not record.live then return 0 end
local earliest, kept = {}, {}
for i in ipairs(demands) do
  local row = redis.call('HMGET', KEYS[2 * i], 'h' .. id, 'e', 'x')
  if not row[1] then return 0 end
  earliest[i] = math.min(tonumber(row[2] or '') or now + ttl, now + ttl)
  kept[i] = tonumber(row[3] or 0)
end
record.due = now + ttl
for i, demand in ipairs(demands) do
  redis.call('ZADD', KEYS[2 * i + 1], 'XX', whole(record.due), id)
  redis.call('HSET', KEYS[2 * i], 'e', whole(earliest[i]))
  if kept[i] < now + demand[8] then
    redis.call('HSET', KEYS[2 * i], 'x', whole(now + 2 * demand[8]))
    redis.call('PEXPIRE', KEYS[2 * i], whole(2 * demand[8]))
    redis.call('PEXPIRE', KEYS[2 * i + 1], whole(2 * demand[8]))
  end
end
store(record, now)
return 1
