-- Digests for the split inside Envoy, the same as buckets.py and identity.py draw: keyed BLAKE2b-64 and
-- HMAC-SHA256. LuaJIT compiles both to machine code; 64-bit words are FFI's, 32-bit words the bit library's.
--
-- RFC 7693 (BLAKE2), FIPS 180-4 (SHA-256), RFC 2104 (HMAC), RFC 4648 section 5 (base64url).

local ffi = require("ffi")
local bit = require("bit")
local band, bor, bxor, bnot = bit.band, bit.bor, bit.bxor, bit.bnot
local rol, ror, rshift, lshift, bswap, tohex, tobit =
  bit.rol, bit.ror, bit.rshift, bit.lshift, bit.bswap, bit.tohex, bit.tobit

local digests = {}

-- BLAKE2b

local BLAKE_IV = ffi.new("const uint64_t[8]", {
  0x6a09e667f3bcc908ULL, 0xbb67ae8584caa73bULL, 0x3c6ef372fe94f82bULL, 0xa54ff53a5f1d36f1ULL,
  0x510e527fade682d1ULL, 0x9b05688c2b3e6c1fULL, 0x1f83d9abfb41bd6bULL, 0x5be0cd19137e2179ULL,
})

-- Twelve rounds of eight steps; each step's four words of the state and two of the message.
local STATE = {
  { 0, 4, 8, 12 }, { 1, 5, 9, 13 }, { 2, 6, 10, 14 }, { 3, 7, 11, 15 },
  { 0, 5, 10, 15 }, { 1, 6, 11, 12 }, { 2, 7, 8, 13 }, { 3, 4, 9, 14 },
}
local SIGMA = {
  { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
  { 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3 },
  { 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4 },
  { 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8 },
  { 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13 },
  { 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9 },
  { 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11 },
  { 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10 },
  { 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5 },
  { 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0 },
}
local STEPS = 12 * 8
local STEP = ffi.new("uint8_t[?]", STEPS * 6)
for round = 0, 11 do
  local sigma = SIGMA[round % 10 + 1]
  for step = 0, 7 do
    local at = (round * 8 + step) * 6
    for word = 0, 3 do
      STEP[at + word] = STATE[step + 1][word + 1]
    end
    STEP[at + 4] = sigma[2 * step + 1]
    STEP[at + 5] = sigma[2 * step + 2]
  end
end

local blake_v = ffi.new("uint64_t[16]")
local blake_block = ffi.new("union { uint8_t bytes[128]; uint64_t words[16]; }")

-- One block of the message into the state `h`; `total`: bytes so far; below 2^32 here.
local function blake_compress(h, total, last)
  local v, m = blake_v, blake_block.words
  for i = 0, 7 do
    v[i] = h[i]
    v[i + 8] = BLAKE_IV[i]
  end
  v[12] = bxor(v[12], 0ULL + total)
  if last then
    v[14] = bnot(v[14])
  end
  for at = 0, (STEPS - 1) * 6, 6 do
    local ia, ib, ic, id = STEP[at], STEP[at + 1], STEP[at + 2], STEP[at + 3]
    local a, b, c, d = v[ia], v[ib], v[ic], v[id]
    a = a + b + m[STEP[at + 4]]
    d = ror(bxor(d, a), 32)
    c = c + d
    b = ror(bxor(b, c), 24)
    a = a + b + m[STEP[at + 5]]
    d = ror(bxor(d, a), 16)
    c = c + d
    b = ror(bxor(b, c), 63)
    v[ia], v[ib], v[ic], v[id] = a, b, c, d
  end
  for i = 0, 7 do
    h[i] = bxor(h[i], bxor(v[i], v[i + 8]))
  end
end

local function blake_load(data, from, count)
  ffi.fill(blake_block, 128)
  if count > 0 then
    ffi.copy(blake_block.bytes, ffi.cast("const uint8_t *", data) + from, count)
  end
end

-- The state after the key's block: the same for every digest that a group draws.
local function blake_keyed(key, person)
  assert(#key >= 1 and #key <= 64 and #person <= 16, "a BLAKE2b key has 1 to 64 bytes, a person 16 at most")
  local h = ffi.new("uint64_t[8]")
  ffi.copy(h, BLAKE_IV, 64)
  h[0] = bxor(h[0], 0x01010000ULL + 256 * #key + 8) -- depth 1, fanout 1, a digest of 8 bytes
  local padded = ffi.new("union { uint8_t bytes[16]; uint64_t words[2]; }")
  ffi.copy(padded.bytes, person, #person)
  h[6] = bxor(h[6], padded.words[0])
  h[7] = bxor(h[7], padded.words[1])
  blake_load(key, 0, #key)
  return h
end

local blake_h = ffi.new("uint64_t[8]")

-- A function that gives the 64-bit digest of a non-empty string under `key`, as a uint64_t.
function digests.blake2b_64(key, person)
  local keyed = blake_keyed(key, person)
  blake_compress(keyed, 128, false)
  return function(data)
    local h, size, from = blake_h, #data, 0
    ffi.copy(h, keyed, 64)
    while size - from > 128 do
      blake_load(data, from, 128)
      from = from + 128
      blake_compress(h, 128 + from, false)
    end
    blake_load(data, from, size - from)
    blake_compress(h, 128 + size, true)
    return bswap(h[0]) -- big-endian, as buckets.py reads it
  end
end

-- SHA-256

local SHA_K = ffi.new("const int32_t[64]", {
  0x428a2f98, 0x71374491, 0xb5c0fbcf - 2^32, 0xe9b5dba5 - 2^32, 0x3956c25b, 0x59f111f1, 0x923f82a4 - 2^32,
  0xab1c5ed5 - 2^32, 0xd807aa98 - 2^32, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe - 2^32,
  0x9bdc06a7 - 2^32, 0xc19bf174 - 2^32, 0xe49b69c1 - 2^32, 0xefbe4786 - 2^32, 0x0fc19dc6, 0x240ca1cc,
  0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152 - 2^32, 0xa831c66d - 2^32, 0xb00327c8 - 2^32,
  0xbf597fc7 - 2^32, 0xc6e00bf3 - 2^32, 0xd5a79147 - 2^32, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138,
  0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e - 2^32, 0x92722c85 - 2^32, 0xa2bfe8a1 - 2^32,
  0xa81a664b - 2^32, 0xc24b8b70 - 2^32, 0xc76c51a3 - 2^32, 0xd192e819 - 2^32, 0xd6990624 - 2^32,
  0xf40e3585 - 2^32, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
  0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814 - 2^32, 0x8cc70208 - 2^32, 0x90befffa - 2^32,
  0xa4506ceb - 2^32, 0xbef9a3f7 - 2^32, 0xc67178f2 - 2^32,
})
local SHA_IV = ffi.new("const int32_t[8]", {
  0x6a09e667, 0xbb67ae85 - 2^32, 0x3c6ef372, 0xa54ff53a - 2^32, 0x510e527f, 0x9b05688c - 2^32, 0x1f83d9ab,
  0x5be0cd19,
})

local sha_w = ffi.new("int32_t[64]")
local sha_block = ffi.new("union { uint8_t bytes[64]; int32_t words[16]; }")

local function sha_compress(h)
  local w, words = sha_w, sha_block.words
  for t = 0, 15 do
    w[t] = bswap(words[t])
  end
  for t = 16, 63 do
    local x, y = w[t - 15], w[t - 2]
    local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
    local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
    w[t] = tobit(w[t - 16] + s0 + w[t - 7] + s1)
  end
  local a, b, c, d, e, f, g, i = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
  for t = 0, 63 do
    local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25))
    local choice = bxor(g, band(e, bxor(f, g)))
    local t1 = tobit(i + s1 + choice + SHA_K[t] + w[t])
    local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
    local majority = bor(band(a, b), band(c, bor(a, b)))
    i, g, f, e = g, f, e, tobit(d + t1)
    d, c, b, a = c, b, a, tobit(t1 + s0 + majority)
  end
  h[0], h[1], h[2], h[3] = tobit(h[0] + a), tobit(h[1] + b), tobit(h[2] + c), tobit(h[3] + d)
  h[4], h[5], h[6], h[7] = tobit(h[4] + e), tobit(h[5] + f), tobit(h[6] + g), tobit(h[7] + i)
end

-- Hash `data` into `h`, which has taken `before` bytes (whole blocks) already.
local function sha_rest(h, data, before)
  local size, from = #data, 0
  local pointer = ffi.cast("const uint8_t *", data)
  while size - from >= 64 do
    ffi.copy(sha_block.bytes, pointer + from, 64)
    sha_compress(h)
    from = from + 64
  end
  ffi.fill(sha_block, 64)
  ffi.copy(sha_block.bytes, pointer + from, size - from)
  sha_block.bytes[size - from] = 0x80
  if size - from >= 56 then
    sha_compress(h)
    ffi.fill(sha_block, 64)
  end
  sha_block.words[15] = bswap(tobit((before + size) * 8)) -- messages here are far below 2^28 bytes
  sha_compress(h)
end

local function sha_bytes(h)
  local out = ffi.new("int32_t[8]")
  for i = 0, 7 do
    out[i] = bswap(h[i])
  end
  return ffi.string(out, 32)
end

local function sha_begin(key, pad)
  local h = ffi.new("int32_t[8]")
  ffi.copy(h, SHA_IV, 32)
  for i = 0, 63 do
    sha_block.bytes[i] = bxor(i < #key and key:byte(i + 1) or 0, pad)
  end
  sha_compress(h)
  return h
end

-- A function that gives the HMAC-SHA256 of a string under `secret`: 32 bytes.
function digests.hmac_sha256(secret)
  if #secret > 64 then
    local h = ffi.new("int32_t[8]")
    ffi.copy(h, SHA_IV, 32)
    sha_rest(h, secret, 0)
    secret = sha_bytes(h)
  end
  local inner, outer = sha_begin(secret, 0x36), sha_begin(secret, 0x5c)
  local h = ffi.new("int32_t[8]")
  return function(data)
    ffi.copy(h, inner, 32)
    sha_rest(h, data, 64)
    local first = sha_bytes(h)
    ffi.copy(h, outer, 32)
    sha_rest(h, first, 64)
    return sha_bytes(h)
  end
end

-- base64url, without padding

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

function digests.base64url(data)
  local out = {}
  for at = 1, #data, 3 do
    local a, b, c = data:byte(at, at + 2)
    local word = bor(lshift(a, 16), lshift(b or 0, 8), c or 0)
    local letters = c and 4 or b and 3 or 2
    for i = 1, letters do
      local index = band(rshift(word, 24 - 6 * i), 63) + 1
      out[#out + 1] = ALPHABET:sub(index, index)
    end
  end
  return table.concat(out)
end

-- 16 hex digits
function digests.hex(word)
  return tohex(word, 16)
end

return digests
