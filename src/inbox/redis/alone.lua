-- Goes before the scripts that do something for many clients: what is wrong with one client's keys is no other's trouble.
-- Given what pcall returns; says 'error why' where that is one.
local function alone(done, reply)
  return done and reply or 'error ' .. (type(reply) == 'table' and reply.err or tostring(reply))
end
