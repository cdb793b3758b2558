-- The split, inside Envoy: who is asking, which side answers, what either is told. The same rules as identity.py,
-- buckets.py, decide.py and headers.py; tests hold both to the same answers.
--
-- A request is matched twice. The first match finds its path's route, whose filter context says what the group asks
-- for (render.py packs it); then this filter names a kind in `x-strangler-arm`, and Envoy matches again, with that
-- header. The router takes the header out before the request is sent.
--
-- `digests` is digests.lua; `setting(name)` reads the environment, where the secret is: the configuration, which
-- Envoy's admin interface shows, does not have it.

local SAFE = { GET = true, HEAD = true, OPTIONS = true }
local REMEMBERED = 20000
local ROUNDS = 4 -- that a request may come by (via.py)
local YEAR = "31536000"
local SPACE = "strangler"

local split = {}

local function unhex(text)
  return (text:gsub("%x%x", function(pair)
    return string.char(tonumber(pair, 16))
  end))
end

-- Cookies

-- The value of the first cookie `name` in a Cookie header, or empty. identity.py: (?:^|[;,]\s*)NAME\s*=\s*"?([^;,"\s]*)
function split.cookie_value(cookies, name)
  local from = 1
  while true do
    local first, last = cookies:find(name, from, true)
    if not first then
      return ""
    end
    local before = first - 1
    while before >= 1 and cookies:find("^%s", before) do
      before = before - 1
    end
    local begins = first == 1 or (before >= 1 and cookies:find("^[;,]", before) ~= nil)
    local value = begins and cookies:match('^%s*=%s*"?([^;,"%s]*)', last + 1)
    if value then
      return value
    end
    from = first + 1
  end
end

local function same(left, right) -- in a time that tells nothing of where they differ
  if #left ~= #right then
    return false
  end
  local differing = 0
  for i = 1, #left do
    differing = bit.bor(differing, bit.bxor(left:byte(i), right:byte(i)))
  end
  return differing == 0
end

function split.signer(digests, secret)
  local hmac = digests.hmac_sha256(secret)
  local signer, verified, count = {}, {}, 0
  local function signature(purpose, value)
    return digests.base64url(hmac(purpose .. "\0" .. value):sub(1, 16))
  end
  function signer.sign(purpose, value)
    return value .. "." .. signature(purpose, value)
  end
  -- The value that was signed, or empty when the signature is not ours.
  function signer.verify(purpose, cookie)
    local known = verified[purpose .. "\0" .. cookie]
    if known then
      return known
    end
    local value, given = cookie:match("^(.+)%.([^.]*)$")
    if not value or not same(given, signature(purpose, value)) then
      return ""
    end
    if count >= REMEMBERED then
      verified, count = {}, 0
    end
    verified[purpose .. "\0" .. cookie], count = value, count + 1
    return value
  end
  return signer
end

-- The user that `X-Strangler-User: said` names, as the proxy's cookie carries it; empty when it cannot.
function split.user_subject(said)
  if #said > 128 or not said:find("^[!-~]+$") then
    return ""
  end
  return (said:gsub('["%%,;\\]', function(char)
    return string.format("%%%02X", char:byte())
  end))
end

local function set_cookie(name, value, seconds, secure)
  local line = name .. "=" .. value .. "; Path=/; Max-Age=" .. seconds .. "; HttpOnly; SameSite=Lax"
  return secure and line .. "; Secure" or line
end

-- Addresses

-- The bytes of an IPv4 or IPv6 address; an IPv4 address that came as IPv6 is IPv4. Nil for anything else.
function split.address_bytes(text)
  local a, b, c, d = text:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  if a then
    return { tonumber(a), tonumber(b), tonumber(c), tonumber(d) }
  end
  text = text:match("^([%x:.]+)") or ""
  local tail = text:match("(%d+%.%d+%.%d+%.%d+)$")
  if tail then
    local low = split.address_bytes(tail)
    text = text:sub(1, -#tail - 1) .. string.format("%x:%x", low[1] * 256 + low[2], low[3] * 256 + low[4])
  end
  local left, right = text:match("^(.-)::(.*)$")
  local function words(part)
    local found = {}
    for word in part:gmatch("%x+") do
      found[#found + 1] = tonumber(word, 16)
    end
    return found
  end
  local head, rest = words(left or text), words(right or "")
  if #head + #rest > 8 or (not left and #head ~= 8) then
    return nil
  end
  local bytes = {}
  for i = 1, 8 do
    local at = i - (8 - #rest)
    local word = head[i] or (at >= 1 and rest[at]) or 0
    bytes[2 * i - 1], bytes[2 * i] = math.floor(word / 256), word % 256
  end
  for i = 1, 12 do
    if bytes[i] ~= (i <= 10 and 0 or 255) then
      return bytes
    end
  end
  return { bytes[13], bytes[14], bytes[15], bytes[16] }
end

function split.network(text)
  local base, length = text:match("^(.-)/(%d+)$")
  return { bytes = split.address_bytes(base), length = tonumber(length) }
end

function split.inside(bytes, of)
  if #bytes ~= #of.bytes then
    return false
  end
  local left = of.length
  for i = 1, #bytes do
    if left <= 0 then
      return true
    end
    local step = left >= 8 and 1 or 2 ^ (8 - left)
    if math.floor(bytes[i] / step) ~= math.floor(of.bytes[i] / step) then
      return false
    end
    left = left - 8
  end
  return true
end

-- Contexts: what a route says of its group, packed by render.py, taken apart once for each text.

local function fields(text, separator)
  local found = {}
  for field in (text .. separator):gmatch("(.-)" .. separator) do
    found[#found + 1] = field
  end
  return found
end

function split.context(digests, packed)
  local said = fields(packed, "\n")
  local context = {
    group = said[1], backend = said[2], default = said[3], threshold = tonumber(said[4]), owner = said[5],
    sticky = said[6], sticky_name = said[7]:lower(), sticky_cookie = said[7], override_header = said[8]:lower(),
    override_cookie = said[9], expose = said[10] == "yes", pages = said[11] == "yes", trusted = {},
    claimed = said[1] ~= "*", via = said[13], via_requests = said[14] == "yes", via_responses = said[15] == "yes",
    shadow = said[16] == "yes",
  }
  for _, text in ipairs(said[12] ~= "" and fields(said[12], " ") or {}) do
    context.trusted[#context.trusted + 1] = split.network(text)
  end
  if context.claimed then
    context.digest = digests.blake2b_64(context.group, "strangler")
  end
  return context
end

-- The kind of route that answers: facts in, a name out (decide.py).
function split.decide(context, method, digest, override)
  if not SAFE[method] then
    return "owner"
  end
  if override ~= "" then
    if override == "canary" or override == context.backend then
      return "tester-canary"
    end
    if override == "control" or override == context.default then
      return "tester-control"
    end
  end
  return digest % 10000ULL < context.threshold and "canary" or "control"
end

-- Headers

local CONDITIONS = {
  "range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "transfer-encoding",
}

-- May the other side be asked the same? As shadow.py: GET and HEAD without body, conditions or range.
function split.may_shadow(headers)
  local method = headers:get(":method")
  if method ~= "GET" and method ~= "HEAD" or (headers:get("content-length") or "0") ~= "0" then
    return false
  end
  for _, name in ipairs(CONDITIONS) do
    if headers:get(name) then
      return false
    end
  end
  return true
end

local function all_of(headers, name)
  local count = headers:getNumValues(name)
  if count == 0 then
    return nil
  end
  local values = {}
  for i = 0, count - 1 do
    values[i + 1] = headers:getAtIndex(name, i)
  end
  return values
end

local function joined(headers, name, separator)
  local values = all_of(headers, name)
  return values and table.concat(values, separator)
end

local DROPPED = {
  ["proxy-authenticate"] = true, ["proxy-authorization"] = true, ["http2-settings"] = true, ["keep-alive"] = true,
  ["proxy-connection"] = true,
}
local TWISTED = {
  ["content-length"] = true, ["transfer-encoding"] = true, ["x-request-id"] = true, ["content-type"] = true,
  ["cache-control"] = true,
}

-- Headers of a request that are not the client's to send: ours, hop-by-hop ones, and what CGI-like environments
-- cannot tell from either. Envoy itself takes out those that `Connection` names.
function split.strips(name, trusted)
  if DROPPED[name] then
    return true
  end
  local plain = name:gsub("_", "-")
  if plain:find("^x%-strangler%-") or plain:find("^x%-envoy%-") then
    return true
  end
  if plain == "forwarded" or plain:find("^x%-forwarded%-") then
    return plain ~= name or not trusted
  end
  return plain ~= name and (DROPPED[plain] or TWISTED[plain]) or false
end

-- How often a Via names this proxy (via.py circles).
function split.rounds(told, name)
  local count = 0
  name = name:lower()
  for member in (told:lower() .. ","):gmatch("(.-),") do
    local said = member:match("^[ \t]*(.-)[ \t]*$"):gsub("^http/", "")
    local by = said:match("^1%.[01][ \t]+([^ \t(]+)[ \t]*$") or said:match("^1%.[01][ \t]+([^ \t(]+)[ \t]*%(")
    if by == name then
      count = count + 1
    end
  end
  return count
end

local function element(address, proto, host)
  local node = address:find(":", 1, true) and '"[' .. address .. ']"' or address
  return "for=" .. node .. ';host="' .. host .. '";proto=' .. proto
end

-- Sets the forwarding headers (headers.py origin_of); the client's address, and whether it used TLS.
function split.tell_origin(headers, peer, trusted, secure)
  local proto, host = secure and "https" or "http", headers:get(":authority") or ""
  local own = element(peer, proto, host)
  local chain = trusted and joined(headers, "x-forwarded-for", ", ") or ""
  local said = trusted and headers:get("x-forwarded-proto") or proto
  local forwarded = trusted and joined(headers, "forwarded", ", ")
  local original = trusted and headers:get("x-forwarded-host") or host
  local address = chain:match("([^,]*)$"):match("^%s*(.-)%s*$")
  if address == "" then
    address = peer
  end
  headers:replace("x-forwarded-for", chain ~= "" and chain .. ", " .. peer or peer)
  headers:replace("x-forwarded-proto", said)
  headers:replace("x-forwarded-host", original)
  headers:replace("forwarded", forwarded and forwarded .. ", " .. own or own)
  return address, said:match("([^,]*)$"):match("^%s*(.-)%s*$"):lower() == "https"
end

-- One filter: `digests`, and the settings of the process it runs in.
function split.filter(digests, setting)
  local signer = split.signer(digests, unhex(setting("STRANGLER_ENVOY_SECRET")))
  local random = io.open("/dev/urandom", "rb")
  local function draw(count)
    return random:read(count)
  end
  random:setvbuf("full", 4096)
  local prefix, requests = digests.base64url(draw(9)), 0
  local remembered, filled = {}, 0
  local filter = {}

  local function context_of(handle)
    local packed = handle:filterContext():get("split")
    local known = remembered[packed]
    if not known then
      if filled >= 4096 then -- old versions of the routes
        remembered, filled = {}, 0
      end
      known = split.context(digests, packed)
      remembered[packed], filled = known, filled + 1
    end
    return known
  end

  local function key_of(context, headers, cookies, address)
    local kind, value = context.sticky, ""
    if kind == "user" then
      value = signer.verify("strangler_user", split.cookie_value(cookies, "strangler_user"))
    elseif kind == "session" then
      value = split.cookie_value(cookies, "sessionid")
    elseif kind == "cookie" then
      value = split.cookie_value(cookies, context.sticky_cookie)
    elseif kind == "header" then
      value = headers:getAtIndex(context.sticky_name, 0) or ""
    elseif kind == "ip" then
      value = address
    end
    if value ~= "" then
      return kind .. ":" .. value
    end
    local anonymous = signer.verify("strangler_id", split.cookie_value(cookies, "strangler_id"))
    return anonymous ~= "" and "anonymous:" .. anonymous or ""
  end

  function filter.request(handle)
    local headers, info = handle:headers(), handle:streamInfo()
    local context = context_of(handle)
    local told = joined(headers, "via", ",")
    if told and split.rounds(told, context.via) >= ROUNDS then
      handle:respond(
        { [":status"] = "508", ["content-type"] = "text/plain" },
        "the request goes round in circles: a backend's address leads to the proxy itself\n"
      )
      return
    end
    local peer = info:downstreamDirectRemoteAddress():match("^%[?(.-)%]?:%d+$")
    local bytes, trusted = nil, false
    if #context.trusted > 0 then
      bytes = split.address_bytes(peer)
      for _, of in ipairs(context.trusted) do
        trusted = trusted or split.inside(bytes, of)
      end
    end
    -- What is read of the client's, before what is not passed on goes.
    local override = context.override_header ~= "" and headers:getAtIndex(context.override_header, 0) or ""
    local kept = override ~= "" and context.override_header:find("^x%-strangler%-") and override or nil
    local gone = {}
    for name in pairs(headers) do
      if split.strips(name, trusted) then
        gone[#gone + 1] = name
      end
    end
    for _, name in ipairs(gone) do
      headers:remove(name)
    end
    local cookies = joined(headers, "cookie", "; ") or ""
    if override == "" and context.override_cookie ~= "" then
      override = split.cookie_value(cookies, context.override_cookie)
    end
    local id = headers:getNumValues("x-request-id") == 1 and headers:get("x-request-id") or ""
    if #id > 128 or not id:find("^[!-~]+$") then
      requests = requests + 1
      id = string.format("%s-%x", prefix, requests)
      headers:replace("x-request-id", id)
    end
    local address, secure = split.tell_origin(headers, peer, trusted, info:downstreamSslConnection() ~= nil)
    if context.via_requests then
      local version = info:protocol():match("^HTTP/([%d.]+)$") or "1.1"
      headers:add("via", (version == "2" and "2.0 " or "1.1 ") .. context.via)
    end
    local metadata = info:dynamicMetadata()
    metadata:set(SPACE, "via", context.via_responses and context.via or "")
    local issue, digest, kind = "", "", "control"
    if context.claimed then
      local key = key_of(context, headers, cookies, address)
      if key == "" then
        issue = digests.base64url(draw(16))
        key = "anonymous:" .. issue
      end
      local word = context.digest(key)
      digest, kind = digests.hex(word), split.decide(context, headers:get(":method"), word, override)
      metadata:set(SPACE, "digest", digest)
    end
    local ending = headers:get("upgrade") and "-tunnel" or ""
    if ending == "" and context.shadow and (kind == "control" or kind == "canary") and split.may_shadow(headers) then
      ending = "-shadow"
    end
    headers:replace("x-strangler-arm", (context.claimed and kind or "unclaimed") .. ending)
    if kept then
      headers:replace(context.override_header, kept)
    end
    metadata:set(SPACE, "id", id)
    metadata:set(SPACE, "issue", issue)
    metadata:set(SPACE, "secure", secure)
    local present = split.cookie_value(cookies, "strangler_user")
    if present ~= "" then
      metadata:set(SPACE, "user", present)
    end
    if context.pages and not context.claimed then
      local known = signer.verify("strangler_id", split.cookie_value(cookies, "strangler_id"))
      metadata:set(SPACE, "page", known == "")
    end
    if context.expose and context.claimed then
      metadata:set(SPACE, "arm", kind:match("canary$") or kind:match("control$") or context.owner)
    end
  end

  function filter.response(handle)
    local headers, known = handle:headers(), handle:streamInfo():dynamicMetadata():get(SPACE)
    local side, said = headers:get("x-strangler-side"), headers:getAtIndex("x-strangler-user", 0)
    local gone = {}
    for name in pairs(headers) do
      if name:gsub("_", "-"):find("^x%-strangler%-") then
        gone[#gone + 1] = name
      end
    end
    for _, name in ipairs(gone) do
      headers:remove(name)
    end
    if not known then
      return -- a request that Envoy refused before this filter saw it
    end
    headers:replace("x-request-id", known.id)
    if known.via ~= "" then
      headers:add("via", "1.1 " .. known.via)
    end
    if known.arm then
      headers:add("x-strangler-arm", known.arm == "canary" and side == "default" and "fallback" or known.arm)
    end
    local set = {}
    if said and side == "default" then
      local subject = split.user_subject(said)
      if said == "" then
        if known.user then
          set[1] = set_cookie("strangler_user", "", "0", known.secure)
        end
      elseif subject ~= "" and signer.verify("strangler_user", known.user or "") ~= subject then
        set[1] = set_cookie("strangler_user", signer.sign("strangler_user", subject), YEAR, known.secure)
      end
    end
    local issue = known.issue
    if known.page and (headers:get("content-type") or ""):sub(1, 9):lower() == "text/html" then
      issue = digests.base64url(draw(16))
    end
    if side and issue ~= "" then
      set[#set + 1] = set_cookie("strangler_id", signer.sign("strangler_id", issue), YEAR, known.secure)
    end
    if #set == 0 then
      return
    end
    local caching = (joined(headers, "cache-control", ",") or ""):lower()
    for _, cookie in ipairs(set) do
      headers:add("set-cookie", cookie)
    end
    if caching:find("public", 1, true) or caching:find("s-maxage", 1, true) then
      headers:add("cache-control", 'private="Set-Cookie"')
    end
  end

  return filter
end

return split
