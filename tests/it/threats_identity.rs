//! Threat rows 21–38: who is asking, and what a stranger may make us believe about that.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use commitcast::clock::Clock;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::support::{CLOSE, House, Reply, SECRET, bearer, frame, handshake, settings, text, token};

/// Token mode, one cookie, two allowed pages.
fn house() -> House {
    house_with("", "")
}

fn house_with(auth: &str, other: &str) -> House {
    House::open(&format!(
        "[auth]\nmode = \"token\"\nhs256_secret = \"{SECRET}\"\ncookie = \"session\"\n{auth}\n\
         [origins]\nallow = [\"https://app.example.com\", \"https://*.team.example.com\", \"http://localhost:5173\"]\n{other}\n"
    ))
}

fn everything() -> String {
    token("ann", &[("*", &["read", "write", "signal", "presence"])])
}

/// A handshake to a prompt that does not exist: past the door it is told so, and a refusal at the door comes before.
fn knock(house: &House, target: &str, fields: &str) -> Reply {
    let mut wire = house.dial();
    wire.send(handshake(target, fields));
    let reply = wire.reply();
    if reply.status != 101 {
        assert!(reply.says_close(), "{fields}: {reply}");
        assert_eq!(wire.rest().expect("an orderly end"), b"", "{fields}");
    }
    reply
}

const NOWHERE: &str = "/ws/prompts/nowhere";

fn assert_let_in(house: &House, what: &str, target: &str, fields: &str) {
    knock(house, target, fields).assert_refused(what, 403, "unknown_prompt");
}

fn assert_turned_away(house: &House, what: &str, fields: &str, status: u16, reason: &str) {
    knock(house, NOWHERE, fields).assert_refused(what, status, reason);
}

#[test]
fn row_21_a_foreign_page_cannot_spend_its_visitors_cookie() {
    let house = house();
    let cookie = format!("Cookie: theme=dark; session={}\r\n", everything());
    let from = |origin: &str| format!("Origin: {origin}\r\n{cookie}");
    assert_let_in(&house, "our page with the cookie", NOWHERE, &from("https://app.example.com"));
    assert_turned_away(&house, "a foreign page with the cookie", &from("https://evil.net"), 403, "origin");
    // And learns nothing of the cookie: the same answer to a bad one.
    let bad = "Origin: https://evil.net\r\nCookie: session=x\r\n";
    assert_turned_away(&house, "a foreign page with a bad cookie", bad, 403, "origin");
    // Over HTTP as well, without leave to read the answer.
    let reply = house.ask("GET", "/api/prompts/all", &from("https://evil.net"), "");
    reply.assert_refused("a foreign page's request", 403, "origin");
    assert_eq!(reply.header("access-control-allow-origin"), None, "{reply}");
}

#[test]
fn row_22_pages_without_an_origin_of_their_own_are_refused_unless_listed() {
    let house = house();
    let bearer = bearer(&everything());
    let origins =
        ["null", "file://", "chrome-extension://abcdef", "moz-extension://1", "data:text/html,x", "about:blank"];
    for origin in origins {
        assert_turned_away(&house, origin, &format!("Origin: {origin}\r\n{bearer}"), 403, "origin");
    }
    drop(house);
    let listed = House::open(&format!(
        "[auth]\nmode = \"token\"\nhs256_secret = \"{SECRET}\"\n[origins]\nallow = [\"null\", \"chrome-extension://abcdef\"]\n"
    ));
    for origin in ["null", "chrome-extension://abcdef"] {
        assert_let_in(&listed, origin, NOWHERE, &format!("Origin: {origin}\r\n{bearer}"));
    }
}

#[test]
fn row_23_an_origin_is_a_tuple_and_nothing_like_it_will_do() {
    let house = house();
    let bearer = bearer(&everything());
    for origin in [
        "https://app.example.com",
        "https://app.example.com:443",
        "HTTPS://APP.example.com",
        "https://a.team.example.com",
        "https://a.b.team.example.com",
        "http://localhost:5173",
    ] {
        assert_let_in(&house, origin, NOWHERE, &format!("Origin: {origin}\r\n{bearer}"));
    }
    for origin in [
        "https://app.example.com.evil.net",
        "https://notapp.example.com",
        "https://app.example.comevil.net",
        "https://app.example.com@evil.net",
        "https://user@app.example.com",
        "https://app.example.com.",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://app.example.com?x",
        "https://app.example.com#x",
        "https://app.example.com\\evil.net",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com:",
        "https://app.example.com:0443",
        "wss://app.example.com",
        "https://team.example.com",
        "https://evilteam.example.com",
        "https://.team.example.com",
        "https://a..team.example.com",
        "https://a.team.example.com.evil.net",
        "https://*.team.example.com",
        "http://localhost",
        "http://localhost:51730",
        "http://127.0.0.1:5173",
        "//app.example.com",
        "app.example.com",
        "https://",
        "",
        "*",
        "https://app.example.com https://evil.net",
        "https://app.example.com, https://evil.net",
    ] {
        assert_turned_away(&house, origin, &format!("Origin: {origin}\r\n{bearer}"), 403, "origin");
    }
}

#[test]
fn row_24_one_origin_and_only_under_its_name() {
    let house = house();
    let bearer = bearer(&everything());
    let ours = "Origin: https://app.example.com\r\n";
    for second in [ours, "Origin: https://evil.net\r\n", "origin: null\r\n"] {
        for both in [format!("{ours}{second}{bearer}"), format!("{second}{bearer}{ours}")] {
            assert_turned_away(&house, "two origins", &both, 403, "origin");
        }
    }
    let old = "Sec-WebSocket-Origin: https://evil.net\r\n";
    assert_let_in(&house, "the older name beside ours", NOWHERE, &format!("{ours}{old}{bearer}"));
    let old = "Sec-WebSocket-Origin: https://app.example.com\r\nOrigin: https://evil.net\r\n";
    assert_turned_away(&house, "the older name against ours", &format!("{old}{bearer}"), 403, "origin");
}

#[test]
fn row_25_without_an_origin_a_cookie_is_no_credential() {
    let house = house();
    let (token, expected) = (everything(), "nowhere");
    assert_turned_away(&house, "a cookie alone", &format!("Cookie: session={token}\r\n"), 403, "origin");
    assert_let_in(&house, "a bearer token", NOWHERE, &bearer(&token));
    let protocol = format!("Sec-WebSocket-Protocol: bearer.{token}\r\n");
    assert_let_in(&house, "a token as a subprotocol", NOWHERE, &protocol);
    assert_let_in(&house, "both", NOWHERE, &format!("Cookie: session={token}\r\n{}", bearer(&token)));
    drop(house);
    let strict = House::open(&format!(
        "[auth]\nmode = \"token\"\nhs256_secret = \"{SECRET}\"\n[origins]\nallow = [\"https://a.example\"]\nabsent = \"deny\"\n"
    ));
    assert_turned_away(&strict, expected, &bearer(&token), 403, "origin");
}

/// Loopback is no credential: a page in the same machine's browser comes from there too.
#[test]
fn row_26_token_mode_asks_everybody() {
    let house = house();
    for (what, fields) in [
        ("nothing", String::new()),
        ("our page", "Origin: http://localhost:5173\r\n".to_owned()),
        ("another scheme", "Authorization: Basic YTpi\r\n".to_owned()),
        ("an empty token", "Authorization: Bearer \r\n".to_owned()),
        ("no token", "Authorization: Bearer\r\n".to_owned()),
        ("two headers", bearer(&everything()) + &bearer(&everything())),
        ("two subprotocols", format!("Sec-WebSocket-Protocol: bearer.{0}, bearer.{0}\r\n", everything())),
        ("a user's name from nobody's proxy", "X-Forwarded-User: ann\r\nX-Forwarded-For: 127.0.0.1\r\n".to_owned()),
    ] {
        assert_turned_away(&house, what, &fields, 401, "token");
    }
    for target in ["/api/prompts/all", "/api/prompts/nowhere", "/api/debug/websocket-check"] {
        house.get(target).assert_refused(target, 401, "token");
    }
    house.ask("POST", "/api/prompts/", "", "{}").assert_refused("a write", 401, "token");
    // The echo is for debug mode.
    knock(&house, "/v1/echo", &bearer(&everything())).assert_refused("the echo", 404, "unknown_path");
}

/// Of backends as of users: the key, shown once, in one of its two places.
#[test]
fn row_26_a_backend_shows_its_key() {
    let key = "the key of a worker, known to nobody else";
    let keys = format!("api_keys = [{{ name = \"worker\", key = \"{key}\", rights = [\"publish:news:*\"] }}]");
    let house = house_with(&keys, "absent = \"deny\"");
    let publish = |room: &str, fields: &str| {
        let body = json!({"room": room, "type": "note", "data": {}}).to_string();
        house.ask("POST", "/v1/publish", fields, &body)
    };
    let shown = format!("X-API-Key: {key}\r\n");
    for fields in [
        shown.clone(),
        format!("Authorization: Bearer {key}\r\n"),
        format!("Origin: https://app.example.com\r\n{shown}"),
    ] {
        assert_eq!(publish("news:today", &fields).status, 201, "{fields}");
    }
    assert_eq!(publish("doc:secret", &shown).status, 403, "a right that the key has not");
    publish("news:today", &format!("Origin: https://evil.net\r\n{shown}")).assert_refused(
        "a foreign page",
        403,
        "origin",
    );
    for (what, fields) in [
        ("nothing", String::new()),
        ("an empty key", "X-API-Key: \r\n".to_owned()),
        ("the front of the key", format!("X-API-Key: {}\r\n", &key[..key.len() - 1])),
        ("more than the key", format!("X-API-Key: {key}x\r\n")),
        ("its name", "X-API-Key: worker\r\n".to_owned()),
        ("the key twice", format!("{shown}{shown}")),
        ("another scheme", format!("Authorization: Basic {key}\r\n")),
        ("a cookie", format!("Cookie: session={key}\r\n")),
        ("a user's token", bearer(&everything())),
    ] {
        publish("news:today", &fields).assert_refused(what, 401, "token");
        knock(&house, "/v1/backend", &fields).assert_refused(what, 401, "token");
    }
    publish_in_the_query(&house, key);
    // Nor does a key make a user.
    assert_turned_away(
        &house,
        "a key as a token",
        &format!("Origin: https://app.example.com\r\nAuthorization: Bearer {key}\r\n"),
        401,
        "token",
    );
}

fn publish_in_the_query(house: &House, key: &str) {
    let target = format!("/v1/publish?token={}&key={0}&api_key={0}", key.replace(' ', "%20"));
    house.ask("POST", &target, "", "{}").assert_refused("a key in the query", 401, "token");
}

/// Claims that are good in every way.
fn claims() -> Value {
    let now = Clock::system().wall().unix_seconds();
    json!({"sub": "ann", "iat": now, "nbf": now, "exp": now + 600, "aud": "commitcast", "iss": "us", "rooms": {"*": ["read"]}})
}

/// A JWT made by hand: whatever header and claims, signed with whatever.
fn jwt(header: &Value, claims: &str, algorithm: Algorithm, secret: &[u8]) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", part(&header.to_string()), part(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("a signature");
    format!("{message}.{signature}")
}

fn hs256(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
}

fn changed(claim: &str, value: Value) -> String {
    let mut claims = claims();
    claims[claim] = value;
    hs256(&claims)
}

fn without(claim: &str) -> String {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(claim);
    hs256(&claims)
}

/// Everything S3 asks for is asked for.
fn strict() -> House {
    house_with("require_exp = true\naudience = [\"commitcast\"]\nissuer = [\"us\"]", "")
}

#[test]
fn row_28_the_tokens_own_word_on_its_algorithm_is_worth_nothing() {
    let house = strict();
    let claims = claims().to_string();
    let secret = SECRET.as_bytes();
    let header = |algorithm: &str| json!({"alg": algorithm, "typ": "JWT"});
    let signed = |algorithm: &str| jwt(&header(algorithm), &claims, Algorithm::HS256, secret);
    let unsigned = |algorithm: &str| {
        let token = signed(algorithm);
        token[..=token.rfind('.').expect("three parts")].to_owned()
    };
    assert_let_in(&house, "made by hand", NOWHERE, &bearer(&signed("HS256")));
    for (what, token) in [
        ("none", signed("none")),
        ("None", signed("None")),
        ("nOnE without a signature", unsigned("nOnE")),
        ("none without a signature", unsigned("none")),
        ("HS256 without a signature", unsigned("HS256")),
        ("HS384 on our key", jwt(&header("HS384"), &claims, Algorithm::HS384, secret)),
        ("HS512 on our key", jwt(&header("HS512"), &claims, Algorithm::HS512, secret)),
        ("HS512 in the header only", signed("HS512")),
        ("RS256 in the header only", signed("RS256")),
        ("no algorithm", jwt(&json!({"typ": "JWT"}), &claims, Algorithm::HS256, secret)),
        ("another secret", jwt(&header("HS256"), &claims, Algorithm::HS256, b"another secret of thirty-two bytes")),
        ("an empty secret", jwt(&header("HS256"), &claims, Algorithm::HS256, b"")),
    ] {
        assert_turned_away(&house, what, &bearer(&token), 401, "token");
    }
}

/// The public key is known to everybody, so nothing signed with it as a secret may pass for the private key's.
#[test]
fn row_28_a_public_key_is_no_secret() {
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----";
    let house = House::open(&format!(
        "[auth]\nmode = \"token\"\nkeys = [{{ kid = \"one\", algorithm = \"EdDSA\", pem = \"\"\"{PUBLIC}\"\"\" }}]\n"
    ));
    let claims = claims().as_object().map(|all| {
        let mut claims = all.clone();
        claims.remove("aud");
        Value::Object(claims).to_string()
    });
    let claims = claims.expect("an object");
    let raw = base64::engine::general_purpose::STANDARD.decode(PUBLIC.lines().nth(1).expect("a line")).expect("base64");
    for secret in [PUBLIC.as_bytes(), format!("{PUBLIC}\n").as_bytes(), &raw, &raw[raw.len() - 32..]] {
        for (algorithm, name) in [(Algorithm::HS256, "HS256"), (Algorithm::HS512, "HS512")] {
            for kid in [json!("one"), Value::Null] {
                let header = match kid {
                    Value::Null => json!({"alg": name}),
                    kid => json!({"alg": name, "kid": kid}),
                };
                let token = jwt(&header, &claims, algorithm, secret);
                assert_turned_away(&house, &header.to_string(), &bearer(&token), 401, "token");
            }
        }
    }
}

#[test]
fn row_29_claims_are_read_strictly() {
    let house = strict();
    let now = Clock::system().wall().unix_seconds();
    assert_let_in(&house, "all claims", NOWHERE, &bearer(&hs256(&claims())));
    let raw = |claims: String| jwt(&json!({"alg": "HS256"}), &claims, Algorithm::HS256, SECRET.as_bytes());
    let good = claims().to_string();
    let (front, _) = good.split_at(good.len() - 1);
    for (what, token, reason) in [
        ("no exp", without("exp"), "token"),
        ("no aud", without("aud"), "token"),
        ("no iss", without("iss"), "token"),
        ("no sub", without("sub"), "token"),
        ("another aud", changed("aud", json!("other")), "token"),
        ("another iss", changed("iss", json!("them")), "token"),
        ("exp as text", changed("exp", json!((now + 600).to_string())), "token"),
        ("exp with a fraction", changed("exp", json!(now as f64 + 600.5)), "token"),
        ("exp of 1e300", changed("exp", json!(1e300)), "token"),
        ("exp null", changed("exp", Value::Null), "token"),
        ("a negative exp", changed("exp", json!(-1)), "token"),
        ("exp an hour ago", changed("exp", json!(now - 3600)), "token_expired"),
        ("exp beyond the leeway", changed("exp", json!(now - 11)), "token_expired"),
        ("nbf in an hour", changed("nbf", json!(now + 3600)), "token"),
        ("nbf beyond the leeway", changed("nbf", json!(now + 15)), "token"),
        ("nbf as text", changed("nbf", json!("0")), "token"),
        ("sub a number", changed("sub", json!(7)), "token"),
        ("sub empty", changed("sub", json!("")), "token"),
        ("sub with a line break", changed("sub", json!("ann\nbob")), "token"),
        ("sub too long", changed("sub", json!("a".repeat(257))), "token"),
        ("rooms a list", changed("rooms", json!(["doc:*"])), "token"),
        ("an unknown verb", changed("rooms", json!({"*": ["own"]})), "token"),
        ("a claim twice", raw(format!("{front},\"sub\":\"bob\"}}")), "token"),
        ("exp twice", raw(format!("{front},\"exp\":{}}}", now + 9999)), "token"),
        ("claims as a list", raw(r#"["ann",1,2]"#.to_owned()), "token"),
        ("claims that are no JSON", raw("{".to_owned()), "token"),
        ("nothing", String::from("a"), "token"),
        ("three dots", String::from("..."), "token"),
        ("crit", jwt(&json!({"alg": "HS256", "crit": ["exp"]}), &good, Algorithm::HS256, SECRET.as_bytes()), "token"),
        ("crit empty", jwt(&json!({"alg": "HS256", "crit": []}), &good, Algorithm::HS256, SECRET.as_bytes()), "token"),
    ] {
        assert_turned_away(&house, what, &bearer(&token), 401, reason);
    }
}

#[test]
fn row_30_a_kid_is_looked_up_and_nothing_else() {
    let house = strict();
    let claims = claims().to_string();
    let good = hs256(&serde_json::from_str(&claims).expect("JSON"));
    for kid in ["../../etc/passwd", "/dev/null", "' OR 1=1 --", "http://127.0.0.1/key", "", "\u{0}", &"k".repeat(1000)]
    {
        let token = jwt(&json!({"alg": "HS256", "kid": kid}), &claims, Algorithm::HS256, SECRET.as_bytes());
        assert_turned_away(&house, kid, &bearer(&token), 401, "token");
        let token = jwt(&json!({"alg": "HS256", "kid": kid}), &claims, Algorithm::HS256, b"");
        assert_turned_away(&house, kid, &bearer(&token), 401, "token");
    }
    // Bounds: the head's line and the token's own.
    let reply = knock(&house, NOWHERE, &bearer(&"a".repeat(8000)));
    reply.assert_refused("a token longer than a line", 431, "head_too_big");
    assert_turned_away(&house, "a long token", &bearer(&format!("{good}{}", "a".repeat(3000))), 401, "token");
    // Cut anywhere, and with any one letter changed, it is not that token.
    for cut in 0..good.len() {
        assert_turned_away(&house, "a cut token", &bearer(&good[..cut]), 401, "token");
    }
}

#[test]
fn row_31_a_token_in_the_query_is_a_choice() {
    let on = house();
    let target = format!("{NOWHERE}?x=1&token={}", everything());
    assert_let_in(&on, "a query token", &target, "");
    let reply = knock(&on, &format!("{target}&token=x"), "");
    reply.assert_refused("two of them", 401, "token");
    drop(on);
    let off = house_with("query_token = false", "");
    knock(&off, &target, "").assert_refused("a query token, switched off", 401, "query_token");
    assert_let_in(&off, "a header beside it", &target, &bearer(&everything()));
}

/// S4: within ten seconds of `exp`, the leeway included.
#[test]
fn row_32_a_token_is_worth_nothing_after_its_end() {
    let house = house();
    house.create("d", "p", "x", &bearer(&everything()));
    let exp = Clock::system().wall().unix_seconds() + 1;
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove("aud");
    claims["exp"] = json!(exp);
    let mut wire = house.join("d/p", &bearer(&hs256(&claims)));
    let began = Instant::now();
    let frame = wire.frame();
    assert_eq!(frame.closing(), Some((4401, "token_expired".to_owned())), "{frame:?}");
    let late = Clock::system().wall().unix_seconds() - exp;
    assert!((0..=10).contains(&late), "closed {late} s after its end (waited {:?})", began.elapsed());
}

/// S5: what one may not see and what is not there look the same, or every id could be tried.
#[test]
fn row_34_rooms_cannot_be_enumerated() {
    let house = house();
    let all = bearer(&everything());
    for (directory, name) in [("mine", "open"), ("mine", "edit"), ("theirs", "secret")] {
        house.create(directory, name, "x", &all);
    }
    let limited = bearer(&token("bob", &[("doc:mine/*", &["read"]), ("doc:mine/edit", &["read", "write"])]));
    let knock = |id: &str| knock(&house, &format!("/ws/prompts/{id}"), &limited);
    // The first by id, the second by name, which is looked up in all directories.
    for (there, not_there) in [("theirs/secret", "theirs/nothing"), ("secret", "nothing")] {
        let (forbidden, absent) = (knock(there), knock(not_there));
        let told = |reply: &Reply, id: &str| (reply.status, reply.reason().to_owned(), reply.text().replace(id, "…"));
        assert_eq!(
            told(&forbidden, there),
            told(&absent, not_there),
            "what exists and what does not must look the same to one who may see neither"
        );
    }
    // Where one may look, the truth is told.
    knock("mine/nothing").assert_refused("a prompt that is not there", 403, "unknown_prompt");
}

/// An inclusion is a read: what one may not open must not come in by another document's door.
#[test]
fn row_34_an_expansion_shows_only_what_may_be_read() {
    let house = house();
    let all = bearer(&everything());
    house.create("mine", "page", "x", &all);
    house.create("theirs", "secret", "the secret text", &all);
    house.create("mine", "part", "a part", &all);
    // Somebody who may read both has put one into the other.
    house.create("mine", "mixed", "[[theirs/secret]]", &all);
    let mut limited = house.join("mine/page", &bearer(&token("bob", &[("doc:mine/*", &["read"])])));
    for (content, shown) in [
        ("[[mine/part]]", "a part"),
        ("[[theirs/secret]]", "NOT FOUND"),
        ("[[secret]]", "NOT FOUND"),
        ("[[mine/mixed]]", "NOT FOUND"),
    ] {
        limited.send_json(&json!({"action": "expand", "content": content}));
        let answer = limited.json();
        assert!(!answer.to_string().contains("the secret text"), "{content} shows what may not be read: {answer}");
        assert!(answer["expanded"].as_str().is_some_and(|text| text.contains(shown)), "{content}: {answer}");
    }
}

#[test]
fn row_34_rights_are_asked_at_the_join_and_for_each_message() {
    let house = house();
    let all = bearer(&everything());
    for name in ["open", "edit"] {
        house.create("mine", name, "x", &all);
    }
    let limited = bearer(&token("bob", &[("doc:mine/*", &["read"]), ("doc:mine/edit", &["read", "write"])]));
    let update = json!({"action": "update", "content": "new"});
    let mut watcher = house.join("mine/open", &all);
    let mut reader = house.join("mine/open", &limited);
    reader.send_json(&update);
    let answer = reader.json();
    assert_eq!((&answer["action"], &answer["success"]), (&json!("update_status"), &json!(false)), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|why| why.contains("not granted")), "{answer}");
    watcher.assert_silent_and_alive("a refused update was shown");
    reader.assert_silent_and_alive("a refusal ends nothing");
    let mut writer = house.join("mine/edit", &limited);
    writer.send_json(&update);
    assert_eq!(writer.json()["success"], true);
    // No right at all: the default is to deny.
    let none = bearer(&token("eve", &[]));
    for id in ["mine/open", "mine/edit"] {
        assert_eq!(knock(&house, &format!("/ws/prompts/{id}"), &none).status, 403, "{id}");
    }
    // A request names a prompt by any spelling, so over HTTP the right must cover all of them.
    for (method, target, body) in [
        ("GET", "/api/prompts/mine/open", ""),
        ("PUT", "/api/prompts/mine/open", "{\"content\":\"y\"}"),
        ("POST", "/api/prompts/", "{\"name\":\"z\",\"directory\":\"mine\"}"),
        ("DELETE", "/api/prompts/mine/open", ""),
        ("POST", "/api/prompts/rename", "{\"old_id\":\"mine/open\",\"new_name\":\"b\"}"),
        ("POST", "/api/prompts/reload", "{}"),
    ] {
        house.ask(method, target, &limited, body).assert_refused(target, 403, "forbidden");
    }
    assert_eq!(house.ask("GET", "/api/prompts/mine/open", &all, "").json()["content"], "x");
}

/// In `close` style the refusal is a close frame with the documented code, since browsers see nothing else.
#[test]
fn refusals_in_close_style_say_the_same_in_their_code() {
    let house = house_with("", "[refuse]\nstyle = \"close\"");
    let bob = bearer(&token("bob", &[("doc:mine/*", &["read"])]));
    for (what, target, fields, code) in [
        ("no token", NOWHERE, String::new(), 4401),
        ("a foreign page", NOWHERE, format!("Origin: https://evil.net\r\n{bob}"), 1008),
        ("an unknown prompt", "/ws/prompts/mine/nothing", bob.clone(), 4004),
    ] {
        let mut wire = house.dial();
        wire.send(handshake(target, &fields) + "GET /health HTTP/1.1\r\nHost: test\r\n\r\n");
        wire.expect_101();
        let reason = wire.expect_close(what, code);
        assert!(!reason.is_empty(), "{what}");
    }
    // What is no handshake, or leads nowhere at all, has nothing that could be accepted.
    knock(&house, "/nowhere", &bob).assert_refused("an unknown path", 404, "unknown_path");
    knock(&house, NOWHERE, "Sec-WebSocket-Key: x\r\n").assert_refused("two keys", 400, "key");
}

#[test]
fn row_35_what_a_payload_says_of_its_sender_is_not_believed() {
    let house = house();
    house.create("d", "p", "x", &bearer(&everything()));
    let mut watcher = house.join("d/p", &bearer(&everything()));
    let mut writer = house.join("d/p", &bearer(&token("bob", &[("doc:d/p", &["read", "write"])])));
    writer.send_json(&json!({
        "action": "update", "content": "new", "actor": "ann", "by": "ann", "approved_by": "ann", "user": "ann",
        "seq": 99, "epoch": "x", "ts": 1, "timestamp": "1999-01-01T00:00:00+00:00", "room": "doc:other", "session_id": "s",
        "prompt_id": "other",
    }));
    let status = writer.json();
    assert_eq!(status["success"], true, "{status}");
    let seen = watcher.json();
    assert_eq!(seen["content"], "new", "{seen}");
    assert_eq!(seen["timestamp"], status["timestamp"], "both are the server's: {seen} {status}");
    assert!(!seen.to_string().contains("1999") && !seen.to_string().contains("ann"), "{seen}");
    assert!(seen["seq"] != 99, "{seen}");
}

/// S7. `remote_addr` of the check shows whom the server takes the client for.
#[test]
fn row_37_a_forwarded_address_is_believed_from_proxies_only_and_from_the_right() {
    let client = |house: &House, lines: &[&str]| {
        let fields: String = lines.iter().map(|line| format!("X-Forwarded-For: {line}\r\n")).collect();
        let reply = house.ask("GET", "/api/debug/websocket-check", &fields, "");
        reply.json()["remote_addr"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    };
    let direct = House::open("");
    for lines in [&["6.6.6.6"][..], &["127.0.0.1"], &["6.6.6.6", "7.7.7.7"]] {
        assert_eq!(client(&direct, lines), "127.0.0.1", "nobody is a proxy here: {lines:?}");
    }
    drop(direct);
    let behind = House::open("[proxy]\ntrusted = [\"127.0.0.1/32\", \"10.0.0.0/8\", \"fd00::/8\"]\n");
    let long = format!("6.6.6.6{}", " ".repeat(3000));
    let padded = format!("{}7.7.7.7", "x, ".repeat(900));
    for (lines, expected) in [
        (&[][..], "127.0.0.1"),
        (&["7.7.7.7"], "7.7.7.7"),
        (&["6.6.6.6, 7.7.7.7"], "7.7.7.7"),
        (&["6.6.6.6", "7.7.7.7"], "7.7.7.7"),
        (&["6.6.6.6, 7.7.7.7", "10.1.2.3"], "7.7.7.7"),
        (&["6.6.6.6,7.7.7.7,10.1.2.3 , 10.9.9.9"], "7.7.7.7"),
        (&["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (&["127.0.0.1, 7.7.7.7"], "7.7.7.7"),
        (&["7.7.7.7, 127.0.0.1"], "7.7.7.7"),
        (&["7.7.7.7:4711"], "7.7.7.7"),
        (&["2001:db8::1"], "2001:db8::1"),
        (&["[2001:db8::1]:80"], "2001:db8::1"),
        (&["fe80::1%eth0"], "fe80::1"),
        (&["::ffff:7.7.7.7"], "7.7.7.7"),
        (&["::ffff:10.1.1.1, 7.7.7.7, ::ffff:10.1.1.1"], "7.7.7.7"),
        (&["fd00::1"], "fd00::1"),
        (&["7.7.7.7, fd00::1"], "7.7.7.7"),
        (&["7.7.7.7,"], "7.7.7.7"),
        (&[" , 7.7.7.7 ,, "], "7.7.7.7"),
        (&[""], "127.0.0.1"),
        // What is no address makes the list worthless, from where it is met.
        (&["unknown"], "127.0.0.1"),
        (&["7.7.7.7, unknown"], "127.0.0.1"),
        (&["unknown, 7.7.7.7"], "7.7.7.7"),
        (&["7.7.7.7, evil.net"], "127.0.0.1"),
        (&["07.7.7.7"], "127.0.0.1"),
        (&["7.7.7"], "127.0.0.1"),
        (&["7.7.7.7:http"], "127.0.0.1"),
        (&["7.7.7.7:99999"], "127.0.0.1"),
        (&["[2001:db8::1"], "127.0.0.1"),
        (&["2001:db8::1%"], "127.0.0.1"),
        (&["\"7.7.7.7\""], "127.0.0.1"),
        (&["for=7.7.7.7"], "127.0.0.1"),
        (&[&long], "6.6.6.6"),
        (&[&padded], "7.7.7.7"),
    ] {
        assert_eq!(client(&behind, lines), expected, "{lines:?}");
    }
    // Names that other servers fold together are other names here.
    for name in ["X_Forwarded_For", "Forwarded", "X-Real-IP", "X-Forwarded-For-"] {
        let reply = behind.ask("GET", "/api/debug/websocket-check", &format!("{name}: 6.6.6.6\r\n"), "");
        assert_eq!(reply.json()["remote_addr"], "127.0.0.1", "{name}");
    }
}

/// S9: nothing that lets everybody in is listened on beyond loopback, unless that was written down.
#[test]
fn s9_no_server_is_open_by_accident() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let secret = format!("hs256_secret = \"{SECRET}\"\n");
    for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0", "[::ffff:10.0.0.1]:0"] {
        for (mode, key, allowed) in [
            ("", "", false),
            ("", &*secret, true),
            ("mode = \"debug\"\n", "", false),
            ("mode = \"debug\"\n", &*secret, false),
            ("mode = \"token\"\n", "", false),
            ("mode = \"token\"\n", &*secret, true),
            ("mode = \"open\"\n", "", true),
        ] {
            for dialect in ["", "[auth.documents]\nmode = \"debug\"\n", "[auth.native]\nmode = \"debug\"\n"] {
                let config = format!("[auth]\n{mode}{key}{dialect}");
                let flags = commitcast::config::Flags {
                    config: Some("test.toml".into()),
                    listen: vec!["127.0.0.1:0".to_owned(), address.to_owned()],
                    data: Some(data.path().to_owned()),
                    ..Default::default()
                };
                let built = commitcast::config::Settings::build(&flags, std::iter::empty(), |_| Ok(config.clone()));
                let expected = allowed && dialect.is_empty();
                match built {
                    Ok(_) => assert!(expected, "{address} would be listened on with\n{config}"),
                    Err(error) => {
                        // With a key and no mode written, whether that means token mode is the configuration's to say.
                        let undecided = mode.is_empty() && !key.is_empty();
                        assert!(!expected || undecided, "{address} is refused with\n{config}\n{error}");
                        assert!(error.to_string().contains("mode"), "{error} does not say what to set");
                    }
                }
            }
        }
    }
    assert!(settings("[auth]\nmode = \"debug\"\n", data.path(), 1).is_ok(), "loopback alone is what debug mode is for");
}

/// S6, for what peers are told: no refusal repeats a credential.
#[test]
fn no_refusal_repeats_a_secret() {
    let house = house();
    let canary = "canary4711canary";
    for fields in [
        format!("Authorization: Bearer {canary}\r\n"),
        format!("Authorization: {canary}\r\n"),
        format!("Sec-WebSocket-Protocol: bearer.{canary}\r\n"),
        format!("Origin: https://app.example.com\r\nCookie: session={canary}\r\n"),
        format!("X-API-Key: {canary}\r\n"),
        format!("Sec-WebSocket-Key: {canary}\r\n"),
    ] {
        for target in [NOWHERE.to_owned(), format!("{NOWHERE}?token={canary}"), format!("/nowhere?token={canary}")] {
            let reply = knock(&house, &target, &fields);
            assert!(!reply.to_string().contains(canary), "{fields} at {target}: {reply}");
        }
    }
    let metrics = house.get("/metrics");
    assert!(!metrics.text().contains(canary), "{metrics}");
    let open = House::open("");
    let check = open.ask(
        "GET",
        &format!("/api/debug/websocket-check?token={canary}"),
        &format!("Authorization: Bearer {canary}\r\nCookie: a={canary}\r\nX-API-Key: {canary}\r\nSec-WebSocket-Protocol: bearer.{canary}\r\n"),
        "",
    );
    assert_eq!(check.status, 200, "{check}");
    assert!(!check.to_string().contains(canary), "{check}");
}

/// A browser drops a socket on which none of its subprotocols was chosen: the token is given back when it stands alone,
/// and beside another it is that one which is chosen.
#[test]
fn a_token_is_chosen_as_a_subprotocol_only_when_it_stands_alone() {
    let house = house();
    house.create("d", "p", "x", &bearer(&everything()));
    let token = everything();
    let alone = format!("bearer.{token}");
    for (offer, chosen) in [(alone.clone(), alone.as_str()), (format!("bearer.{token}, v1"), "v1")] {
        let mut wire = house.dial();
        wire.send(handshake("/ws/prompts/d/p", &format!("Sec-WebSocket-Protocol: {offer}\r\n")));
        let reply = wire.expect_101();
        assert_eq!(reply.header("sec-websocket-protocol"), Some(chosen), "{offer}: {reply}");
        assert_eq!(wire.json()["action"], "initial");
        wire.send([text("{}"), frame(CLOSE, b"")].concat());
        assert_eq!(wire.expect_close(&offer, 1005), "");
    }
}
