-- Replace the hold by what was used, per demand; a late one charges, a second changes nothing.
-- KEYS: record, then account and holds of each demand.
-- ARGV: packed {now or false, id, demands, amounts}.
local given, id, demands, used = unpack(cmsgpack.unpack(ARGV[1]))
local now = clock(given)
local record = load(now)
if not record then return cmsgpack.pack({'unknown'}) end
local found = open_all(demands, id, now)
if not found then return off_table(now) end
if record.state == HELD then
  for i, account in ipairs(found) do
    local amount = math.min(used[i], MAX_AMOUNT)
    local fixed, bucket = drop(account, id, account.entry)
    if bucket then
      refund(account, bucket, fixed - amount, now)
      amount = amount - fixed
    end
    charge(account, amount)
  end
  finish(record, now)
end
save_all(found)
return cmsgpack.pack({'balances', balances(found)})
