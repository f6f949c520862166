//! Tokens. Nobody is let in whom a second reading of the rules (README, "Tokens"; RFC 7515, RFC 7519) would not let in,
//! and what is said of whoever is let in is what the token says. Half of all tokens are arbitrary text; the others have
//! a header and a payload of the input's making under a good signature, since what stands behind the signature is never
//! reached otherwise.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use commitcast::auth::rights::{Rights, Verb};
use commitcast::auth::token::{Algorithm, Claims, KeyIdentity, KeyRing, LEEWAY_SECONDS, Rules, USER_CHARS_MAX};
use commitcast::clock::Wall;
use commitcast::limits::{ROOM_NAME_BYTES_MAX, TOKEN_BYTES_MAX};
use jsonwebtoken::EncodingKey;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::input::Input;

const NOW: Wall = Wall(1_700_000_000_000_000);
const TIME_MAX: i64 = 253_402_300_799;

/// A key as the second reading knows it.
struct Key {
    kid: Option<&'static str>,
    algorithm: jsonwebtoken::Algorithm,
    name: &'static str,
    secret: &'static [u8],
}

/// Keys, and what is asked of a token.
struct Realm {
    ring: KeyRing,
    keys: Vec<Key>,
    rules: Rules,
}

static REALMS: LazyLock<[Realm; 3]> = LazyLock::new(|| {
    let lone = Key {
        kid: None,
        algorithm: jsonwebtoken::Algorithm::HS256,
        name: "HS256",
        secret: b"lone secret, 32 bytes of it .....",
    };
    let one = Key { kid: Some("one"), algorithm: jsonwebtoken::Algorithm::HS256, ..lone };
    let two = Key {
        kid: Some("two"),
        algorithm: jsonwebtoken::Algorithm::HS512,
        name: "HS512",
        secret: b"another secret, of another key",
    };
    let strict = Rules { require_exp: true, audience: vec!["prompts".to_owned()], issuer: vec!["login".to_owned()] };
    let named = Key {
        kid: Some("k"),
        algorithm: jsonwebtoken::Algorithm::HS384,
        name: "HS384",
        secret: b"a third one, with a name",
    };
    [(vec![lone], Rules::default()), (vec![one, two], Rules::default()), (vec![named], strict)].map(|(keys, rules)| {
        let mut ring = KeyRing::new(rules.clone());
        for key in &keys {
            let algorithm = Algorithm::parse(key.name).expect("a known algorithm");
            ring.add(key.kid, algorithm, key.secret).expect("a good key");
        }
        Realm { ring, keys, rules }
    })
});

pub fn token(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let realm = &REALMS[usize::from(choice) % REALMS.len()];
    let rest = input.rest();
    let token = if choice & 0x80 == 0 {
        String::from_utf8_lossy(rest).into_owned()
    } else {
        let key = &realm.keys[usize::from(choice >> 4 & 1) % realm.keys.len()];
        let (header, payload) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (&br#"{"alg":"HS256"}"#[..], rest),
        };
        signed(header, payload, key)
    };
    let found = realm.ring.verify(&token, NOW);
    if let Ok(claims) = found {
        if has_a_number_beyond_all(&token) {
            return;
        }
        let expected = second_reading(&token, realm, &claims.key);
        assert_eq!(Some(&claims), expected.as_ref(), "{token}");
        use_of(&claims);
    }
}

/// JSON as RFC 8259 has it, in a claim that nobody asks for; but the second reading has no place for it.
fn has_a_number_beyond_all(token: &str) -> bool {
    let payload = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok()).unwrap_or_default();
    serde_json::from_slice::<Json>(&payload).is_err_and(|error| error.to_string().starts_with("number out of range"))
}

fn signed(header: &[u8], payload: &[u8], key: &Key) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let secret = EncodingKey::from_secret(key.secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &secret, key.algorithm).expect("HMAC never fails");
    format!("{message}.{signature}")
}

/// What is granted is what the claim `rooms` says, room by room.
fn use_of(claims: &Claims) {
    let Some(rights) = &claims.rooms else { return };
    let grants: Vec<(&str, Vec<Verb>)> = rights.grants().map(|(pattern, verbs)| (pattern, verbs.collect())).collect();
    let rooms = ["doc:readme", "doc:", "session:0", "x"].into_iter().chain(grants.iter().map(|(pattern, _)| *pattern));
    for room in rooms {
        for verb in Verb::ALL {
            let expected = grants.iter().any(|(pattern, verbs)| {
                let fits = match pattern.strip_suffix('*') {
                    Some(front) => room.len() >= front.len() && room.as_bytes()[..front.len()] == *front.as_bytes(),
                    None => room == *pattern,
                };
                fits && verbs.contains(&verb)
            });
            assert_eq!(rights.allows(room, verb), expected, "{room} {verb:?}");
        }
    }
}

/// None: not to be let in. `said` is whose signature it is taken for, which must be that of the key found here.
fn second_reading(token: &str, realm: &Realm, said: &Arc<KeyIdentity>) -> Option<Claims> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, _] = parts[..] else { return None };
    let [header_text, payload_text] = [header, payload].map(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let (header_text, payload_text) = (header_text?, payload_text?);
    let header = Json::object(&header_text)?;
    let kid = match header.get("kid") {
        None | Some(Json::Null) => None,
        Some(Json::Text(kid)) => Some(kid.as_str()),
        Some(_) => return None,
    };
    let key = match (kid, &realm.keys[..]) {
        (None, [only]) => only,
        // No two keys of a realm have one algorithm.
        (None, keys) => keys.iter().find(|key| header.get("alg") == Some(&Json::Text(key.name.to_owned())))?,
        (Some(kid), keys) => keys.iter().find(|key| key.kid == Some(kid))?,
    };
    let is_critical = !matches!(header.get("crit"), None | Some(Json::Null));
    let says_algorithm = matches!(header.get("alg"), Some(Json::Text(name)) if name == key.name);
    if token.len() > TOKEN_BYTES_MAX
        || is_critical
        || !says_algorithm
        || signed(&header_text, &payload_text, key) != token
    {
        return None;
    }
    let mut alone = KeyRing::new(Rules::default());
    alone.add(None, Algorithm::parse(key.name)?, key.secret).ok()?;
    assert!(alone.has(said), "another key is named than {} {:?}", key.name, key.kid);
    claims(&Json::object(&payload_text)?, said, &realm.rules)
}

fn claims(payload: &Json, key: &Arc<KeyIdentity>, rules: &Rules) -> Option<Claims> {
    // Of these none may be there twice, and none be null.
    let known = ["sub", "user_id", "exp", "nbf", "jti", "rooms"];
    let is_plain =
        |name: &&str| payload.count(name) <= 1 && !(*name != "user_id" && payload.get(name) == Some(&Json::Null));
    if !known.iter().all(is_plain) {
        return None;
    }
    let is_name =
        |text: &str| (1..=USER_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    let time = |name: &str| match payload.get(name) {
        None => Some(None),
        Some(Json::Number(number)) => number.as_i64().filter(|it| (0..=TIME_MAX).contains(it)).map(Some),
        Some(_) => None,
    };
    let now = NOW.unix_seconds();
    let (exp, nbf) = (time("exp")?, time("nbf")?);
    let is_timely =
        exp.is_none_or(|exp| exp + LEEWAY_SECONDS > now) && nbf.is_none_or(|nbf| nbf - LEEWAY_SECONDS <= now);
    let is_meant = match payload.get("aud") {
        None => rules.audience.is_empty(),
        Some(aud) => aud.texts().iter().any(|text| rules.audience.iter().any(|one| one == text)),
    };
    let issuer = payload.get("iss").map(Json::texts).unwrap_or_default();
    let is_issued = rules.issuer.is_empty() || issuer.iter().any(|text| rules.issuer.iter().any(|one| one == text));
    let Some(Json::Text(sub)) = payload.get("sub") else { return None };
    if !is_name(sub) || !is_timely || !is_meant || !is_issued || (rules.require_exp && exp.is_none()) {
        return None;
    }
    let user_id = match payload.get("user_id") {
        Some(Json::Text(name)) if is_name(name) => Some(name.as_str().into()),
        _ => None,
    };
    let jti = match payload.get("jti") {
        None => None,
        Some(Json::Text(id)) if (1..=256).contains(&id.len()) => Some(id.as_str().into()),
        Some(_) => return None,
    };
    let rooms = match payload.get("rooms") {
        None => None,
        Some(rooms) => Some(rights(rooms)?),
    };
    // Only to be compared with the moment of a revocation: whatever it is, it shuts nobody out.
    let iat = match payload.get("iat") {
        Some(Json::Number(number)) => number.as_i64().or(number.as_f64().map(|seconds| seconds.floor() as i64)),
        _ => None,
    };
    Some(Claims { sub: sub.as_str().into(), user_id, exp, iat, jti, key: key.clone(), rooms })
}

fn rights(rooms: &Json) -> Option<Rights> {
    let Json::Object(pairs) = rooms else { return None };
    let patterns: BTreeSet<&str> = pairs.iter().map(|(pattern, _)| pattern.as_str()).collect();
    let is_pattern = |pattern: &&str| {
        (1..=ROOM_NAME_BYTES_MAX).contains(&pattern.len())
            && !pattern[..pattern.len() - pattern.chars().next_back().map_or(0, char::len_utf8)].contains('*')
    };
    if patterns.len() != pairs.len() || !patterns.iter().all(is_pattern) {
        return None;
    }
    let mut granted = Vec::new();
    for (pattern, verbs) in pairs {
        let Json::List(verbs) = verbs else { return None };
        let mut words = Vec::new();
        for verb in verbs {
            let Json::Text(verb) = verb else { return None };
            words.push(*["read", "write", "signal", "presence", "approve"].iter().find(|word| *word == verb)?);
        }
        granted.push((pattern.as_str(), words));
    }
    Rights::parse(granted).ok()
}

/// JSON that forgets nothing: an object's members in their order, those of one name too.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Null,
    Bool,
    Number(Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn object(text: &[u8]) -> Option<Json> {
        serde_json::from_slice(text).ok().filter(|json| matches!(json, Json::Object(_)))
    }

    fn get(&self, name: &str) -> Option<&Json> {
        let Json::Object(members) = self else { return None };
        members.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn count(&self, name: &str) -> usize {
        let Json::Object(members) = self else { return 0 };
        members.iter().filter(|(known, _)| known == name).count()
    }

    /// One text, or a list of them.
    fn texts(&self) -> Vec<&str> {
        match self {
            Json::Text(text) => vec![text],
            Json::List(list) => list.iter().flat_map(Json::texts).collect(),
            _ => Vec::new(),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
                Ok(Json::Bool)
            }

            fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
                Ok(Json::Number(number.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(Json::Number(number.into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
                Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Json::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Json::Object(members))
            }
        }

        deserializer.deserialize_any(Any)
    }
}
