-- What oncehook does, as one would write it in nginx: the token's HS256, the body's digest, SET NX in Redis, and the
-- key taken back if the backend failed. It knows an event by its id, as all recipes do.

local cjson = require("cjson.safe")
local ffi = require("ffi")
local base64 = require("ngx.base64")

ffi.cdef([[
typedef struct evp_md_st EVP_MD;
const EVP_MD *EVP_sha256(void);
unsigned char *HMAC(const EVP_MD *md, const void *key, int key_len, const unsigned char *data, size_t n,
                    unsigned char *out, unsigned int *out_len);
unsigned char *SHA256(const unsigned char *data, size_t n, unsigned char *out);
int CRYPTO_memcmp(const void *a, const void *b, size_t n);
]])

local C = ffi.C -- nginx has libcrypto loaded
local digest = ffi.new("unsigned char[32]")
local length = ffi.new("unsigned int[1]")

local REMEMBERED_SECONDS = 3600
local REDIS_MILLISECONDS = 250
local IDLE_MILLISECONDS = 60000
local IDLE_CONNECTIONS = 64

local M = {}
local options

function M.configure(given)
    options = given
end

local function refuse(status)
    return ngx.exit(status)
end

-- The event's id, or nothing if the request is not LiveKit's.
local function verify()
    local token = ngx.var.http_authorization
    if not token then
        return nil
    end
    local signed, claims, signature = token:match("^([%w_-]+%.([%w_-]+))%.([%w_-]+)$")
    if not signed then
        return nil
    end
    signature = base64.decode_base64url(signature)
    if not signature or #signature ~= 32 then
        return nil
    end
    C.HMAC(C.EVP_sha256(), options.secret, #options.secret, signed, #signed, digest, length)
    if C.CRYPTO_memcmp(digest, signature, 32) ~= 0 then
        return nil
    end

    claims = cjson.decode(base64.decode_base64url(claims) or "")
    local now = ngx.time()
    if not claims or claims.iss ~= options.key or not claims.exp or claims.exp < now or (claims.nbf or 0) > now + 60 then
        return nil
    end

    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    if not body then
        return nil
    end
    C.SHA256(body, #body, digest)
    if ngx.encode_base64(ffi.string(digest, 32)) ~= claims.sha256 then
        return nil
    end
    local event = cjson.decode(body)
    return event and event.id
end

-- One command. Redis' answer, or nothing and why not.
local function redis(...)
    local socket = ngx.socket.tcp()
    socket:settimeout(REDIS_MILLISECONDS)
    local ok, err = socket:connect("127.0.0.1", options.redis_port)
    if not ok then
        return nil, err
    end
    local arguments = { ... }
    local parts = { "*", #arguments, "\r\n" }
    for _, argument in ipairs(arguments) do
        parts[#parts + 1] = "$" .. #argument .. "\r\n" .. argument .. "\r\n"
    end
    ok, err = socket:send(parts)
    if not ok then
        return nil, err
    end
    local line
    line, err = socket:receive("*l")
    if not line then
        return nil, err
    end
    socket:setkeepalive(IDLE_MILLISECONDS, IDLE_CONNECTIONS)
    return line
end

function M.claim()
    local id = verify()
    if not id then
        return refuse(ngx.HTTP_UNAUTHORIZED)
    end
    local key = "lua:" .. id
    local answer, err = redis("SET", key, "1", "NX", "EX", tostring(REMEMBERED_SECONDS))
    if not answer then
        ngx.log(ngx.ERR, "redis: ", err)
        return refuse(ngx.HTTP_SERVICE_UNAVAILABLE)
    end
    if answer == "$-1" then
        return refuse(ngx.HTTP_OK)
    end
    ngx.ctx.claimed = key
end

function M.settle()
    if ngx.ctx.claimed and ngx.status >= 500 then
        local key = ngx.ctx.claimed
        ngx.timer.at(0, function()
            redis("DEL", key)
        end)
    end
end

return M
