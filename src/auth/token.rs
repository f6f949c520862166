//! Signed tokens (JWT): which keys are believed, what a token must say, and how one is made.
//!
//! The library checks the signature and the shape; its defaults are not ours (PROMISES.md F10): it reads the machine's
//! clock, skips `nbf`, lets a token without `aud` pass where one is configured, and ignores `crit`. Order matters for what
//! a stranger can learn: nothing of the claims is looked at before the signature holds.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::auth::rights::{Rights, Verb};
use crate::clock::Wall;
use crate::limits::TOKEN_BYTES_MAX;

/// Seconds by which the issuer's clock and ours may differ (PROMISES.md S3 allows ten).
pub const LEEWAY_SECONDS: i64 = 5;
/// Characters of a user's name.
pub const USER_CHARS_MAX: usize = 256;
/// Bytes of a token's own id.
pub const JTI_BYTES_MAX: usize = 256;
/// The last second of the year 9999. Later times are nobody's intention and would overflow once counted in microseconds.
pub const TIME_MAX: i64 = 253_402_300_799;
/// Bytes of the smallest RSA key the verifier takes: the modulus of 2,048 bits alone.
const RSA_BYTES_MIN: usize = 256;
/// Bytes of an uncompressed P-256 point, and of an Ed25519 key.
const P256_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;

/// How a key's tokens are signed. Each key has exactly one; the token's own word on it is only compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    pub const ALL: [Algorithm; 6] =
        [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512, Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    /// The name of RFC 7518 and RFC 8037, as the configuration and a token's header write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    pub fn parse(text: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == text)
    }

    fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::Hs384 => jsonwebtoken::Algorithm::HS384,
            Algorithm::Hs512 => jsonwebtoken::Algorithm::HS512,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// What is asked of every token besides its signature and `sub`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub require_exp: bool,
    /// Any of these must be in `aud`. Empty: a token that names an audience is meant for somebody else (RFC 7519 4.1.3).
    pub audience: Vec<String>,
    /// Any of these must be `iss`. Empty: not looked at.
    pub issuer: Vec<String>,
}

/// The keys whose tokens are believed. The empty ring believes none.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    rules: Rules,
    keys: Vec<Key>,
}

/// Why a key of the configuration cannot be used. Never holds key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the secret is empty")]
    EmptySecret,
    #[error("the secret is a PEM key: an HS* secret must be known to nobody else, and a public key is known to all")]
    PemAsSecret,
    #[error("this is a private key: the server verifies only, give it the public one")]
    PrivateKey,
    #[error("this is not a public key in PEM of the kind its algorithm needs")]
    WrongKind,
    #[error("the RSA key has fewer than 2,048 bits")]
    WeakRsa,
    #[error("two keys have the same kid")]
    KidRepeated,
}

/// Why a token was refused: fixed words only, never the library's and never the token's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is longer than 4 KiB")]
    TooLong,
    #[error("the token is not a signed JWT")]
    Malformed,
    #[error("the token has critical header extensions, and none is supported")]
    Critical,
    #[error("the token names no key of this server")]
    UnknownKey,
    #[error("the token's algorithm is not its key's")]
    Algorithm,
    #[error("the token's signature does not fit")]
    Signature,
    #[error("a claim of the token is missing, repeated or malformed (times are whole seconds)")]
    Claims,
    #[error("the token is not meant for this server (aud)")]
    Audience,
    #[error("the token's issuer is not believed here (iss)")]
    Issuer,
    #[error("the token is not valid yet (nbf)")]
    NotYetValid,
    #[error("the token has expired")]
    Expired,
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub sub: Arc<str>,
    /// The claim `user_id`, when it is a name as `sub` has to be one.
    pub user_id: Option<Arc<str>>,
    /// Seconds since 1970, without the leeway.
    pub exp: Option<i64>,
    /// Seconds since 1970, rounded down; none where the claim is missing or no number.
    pub iat: Option<i64>,
    pub jti: Option<Arc<str>>,
    /// The key whose signature it bears.
    pub key: Arc<KeyIdentity>,
    /// The claim `rooms`; without it the configuration's `default_rights` hold.
    pub rooms: Option<Rights>,
}

impl KeyRing {
    pub fn new(rules: Rules) -> KeyRing {
        KeyRing { rules, keys: Vec::new() }
    }

    /// `material` is the secret of an HS* key, otherwise a public key in PEM. Several keys may do without a kid: while one
    /// follows another, tokens of both are about.
    pub fn add(&mut self, kid: Option<&str>, algorithm: Algorithm, material: &[u8]) -> Result<(), KeyError> {
        if kid.is_some() && self.keys.iter().any(|key| key.kid.as_deref() == kid) {
            return Err(KeyError::KidRepeated);
        }
        self.keys.push(Key {
            kid: kid.map(Box::from),
            identity: Arc::new(KeyIdentity { algorithm, material: material.into() }),
            decoding: decoding_key(algorithm, material)?,
            validation: validation(algorithm, &self.rules),
        });
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Is this key still one of the ring's? By whichever name: what signed with it is signed by somebody who is believed.
    pub fn has(&self, identity: &KeyIdentity) -> bool {
        self.keys.iter().any(|key| *key.identity == *identity)
    }

    pub fn verify(&self, token: &str, now: Wall) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        // An extension the issuer calls critical may change what the token means (RFC 7515 4.1.11); the library reads on.
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let (payload, key) = self.check_signature(token, &header)?;
        check_times(&payload, now)?;
        Ok(Claims {
            sub: payload.sub.0,
            user_id: payload.user_id.and_then(|user_id| user_id.0),
            exp: payload.exp.map(|exp| exp.0),
            iat: payload.iat.and_then(|iat| iat.0),
            jti: payload.jti.map(|jti| jti.0),
            key: key.identity.clone(),
            rooms: payload.rooms.map(|rooms| rooms.0),
        })
    }

    /// `kid` is compared and nothing else: a path or an address in it leads nowhere (threat row 30). A token without one is
    /// tried with each key of its algorithm, so that keys can follow one another where tokens name none; which of them it
    /// is says the signature alone, and no key is ever used with an algorithm that is not its own.
    fn check_signature(&self, token: &str, header: &Header) -> Result<(Payload, &Key), TokenError> {
        let is_asked = |key: &&Key| match (header.kid.as_deref(), self.keys.as_slice()) {
            (Some(kid), _) => key.kid.as_deref() == Some(kid),
            (None, [_]) => true,
            (None, _) => key.identity.algorithm.of_library() == header.alg,
        };
        let mut refused = TokenError::UnknownKey;
        for key in self.keys.iter().filter(is_asked) {
            match jsonwebtoken::decode::<Box<RawValue>>(token, &key.decoding, &key.validation) {
                // As text first, which has to be JSON as a whole (RFC 7519 7.2): what is read into claims at once is looked
                // at only where there is a claim of ours (found by fuzzing: a byte that is no UTF-8 in one that nobody asks
                // for).
                Ok(decoded) => {
                    let payload = serde_json::from_str(decoded.claims.get()).map_err(|_| TokenError::Claims)?;
                    return Ok((payload, key));
                }
                Err(error) => refused = blame(error.kind()),
            }
            if refused != TokenError::Signature {
                break;
            }
        }
        Err(refused)
    }
}

/// What `commitcast token` writes into a token.
#[derive(Clone, Debug, Default)]
pub struct Mint<'a> {
    pub sub: &'a str,
    pub ttl: Option<Duration>,
    pub rooms: Option<&'a Rights>,
    pub kid: Option<&'a str>,
    /// By which it can be revoked alone.
    pub jti: Option<&'a str>,
    pub audience: Option<&'a str>,
    pub issuer: Option<&'a str>,
}

/// Why no token was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    #[error("the secret is empty")]
    EmptySecret,
    #[error("a user's name is 1 to 256 characters without control characters")]
    User,
    #[error("a token's id is 1 to 256 bytes")]
    TokenId,
    #[error("the token would be longer than 4 KiB: grant fewer rooms")]
    TooLong,
    #[error("the token could not be signed")]
    Signing,
}

/// Makes a token signed with HS256, valid from `now`.
pub fn mint(secret: &[u8], mint: &Mint<'_>, now: Wall) -> Result<String, MintError> {
    if secret.is_empty() {
        return Err(MintError::EmptySecret);
    }
    if !is_user_name(mint.sub) {
        return Err(MintError::User);
    }
    if !mint.jti.is_none_or(is_token_id) {
        return Err(MintError::TokenId);
    }
    let iat = now.unix_seconds();
    let lifetime = |ttl: Duration| iat.saturating_add_unsigned(ttl.as_secs()).min(TIME_MAX);
    let claims = Minted {
        sub: mint.sub,
        user_id: mint.sub,
        iat,
        exp: mint.ttl.map(lifetime),
        jti: mint.jti,
        aud: mint.audience,
        iss: mint.issuer,
        rooms: mint.rooms.map(WrittenRooms),
    };
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = mint.kid.map(str::to_owned);
    let token =
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).map_err(|_| MintError::Signing)?;
    if token.len() > TOKEN_BYTES_MAX { Err(MintError::TooLong) } else { Ok(token) }
}

/// A name that may stand in events and log lines.
pub fn is_user_name(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= USER_CHARS_MAX && !text.chars().any(char::is_control)
}

/// Which key it is, also over a reload of the configuration. Compared as a whole and never shown.
#[derive(PartialEq, Eq)]
pub struct KeyIdentity {
    algorithm: Algorithm,
    material: Box<[u8]>,
}

impl fmt::Debug for KeyIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyIdentity").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// What the claim `jti` may be.
pub fn is_token_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= JTI_BYTES_MAX
}

#[derive(Clone)]
struct Key {
    kid: Option<Box<str>>,
    identity: Arc<KeyIdentity>,
    decoding: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Checks here what the library would only find at the first token, or never: it takes a private RSA key for a public
/// one, and a point of any curve.
fn decoding_key(algorithm: Algorithm, material: &[u8]) -> Result<DecodingKey, KeyError> {
    let holds = |marker: &[u8]| material.windows(marker.len()).any(|window| window == marker);
    if matches!(algorithm, Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512) {
        return if material.is_empty() {
            Err(KeyError::EmptySecret)
        } else if holds(b"-----BEGIN ") {
            Err(KeyError::PemAsSecret)
        } else {
            Ok(DecodingKey::from_secret(material))
        };
    }
    if holds(b"PRIVATE KEY-----") {
        return Err(KeyError::PrivateKey);
    }
    let key = match algorithm {
        Algorithm::Rs256 => DecodingKey::from_rsa_pem(material),
        Algorithm::Es256 => DecodingKey::from_ec_pem(material),
        _ => DecodingKey::from_ed_pem(material),
    }
    .map_err(|_| KeyError::WrongKind)?;
    let bytes = key.try_get_as_bytes().map_err(|_| KeyError::WrongKind)?.len();
    match algorithm {
        Algorithm::Rs256 if bytes < RSA_BYTES_MIN => Err(KeyError::WeakRsa),
        Algorithm::Es256 if bytes != P256_BYTES => Err(KeyError::WrongKind),
        Algorithm::EdDsa if bytes != ED25519_BYTES => Err(KeyError::WrongKind),
        _ => Ok(key),
    }
}

/// The library's part. `exp` and `nbf` are [`check_times`]'s, because the library reads the machine's clock, and the
/// simulation's would not hold.
fn validation(algorithm: Algorithm, rules: &Rules) -> Validation {
    let set = |values: &[String]| (!values.is_empty()).then(|| HashSet::from_iter(values.iter().cloned()));
    let mut validation = Validation::new(algorithm.of_library());
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.aud = set(&rules.audience);
    validation.iss = set(&rules.issuer);
    let required = [
        ("sub", true),
        ("exp", rules.require_exp),
        ("aud", validation.aud.is_some()),
        ("iss", validation.iss.is_some()),
    ];
    let required: Vec<&str> = required.into_iter().filter(|(_, required)| *required).map(|(claim, _)| claim).collect();
    validation.set_required_spec_claims(&required);
    validation
}

fn blame(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        // The header was read before, so this is the payload's.
        ErrorKind::Json(_) | ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            TokenError::Claims
        }
        _ => TokenError::Malformed,
    }
}

fn check_times(payload: &Payload, now: Wall) -> Result<(), TokenError> {
    let now = now.unix_seconds();
    if let Some(Time(nbf)) = payload.nbf
        && nbf > now.saturating_add(LEEWAY_SECONDS)
    {
        return Err(TokenError::NotYetValid);
    }
    // RFC 7519 4.1.4: on `exp` itself the token is no longer valid.
    if let Some(Time(exp)) = payload.exp
        && exp <= now.saturating_sub(LEEWAY_SECONDS)
    {
        return Err(TokenError::Expired);
    }
    Ok(())
}

/// The claims as strictly as they are promised: an object, no claim twice, a present claim is never `null`.
struct Payload {
    sub: UserName,
    user_id: Option<OtherName>,
    exp: Option<Time>,
    nbf: Option<Time>,
    iat: Option<OtherTime>,
    jti: Option<TokenId>,
    rooms: Option<ReadRooms>,
}

impl<'de> Deserialize<'de> for Payload {
    /// Only an object will do. The derived reader would take an array as well, and fill the claims by place.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            sub: UserName,
            #[serde(default, deserialize_with = "present")]
            user_id: Option<OtherName>,
            #[serde(default, deserialize_with = "present")]
            #[expect(dead_code, reason = "read to be judged, not to be kept")]
            aud: Option<Audience>,
            #[serde(default, deserialize_with = "present")]
            exp: Option<Time>,
            #[serde(default, deserialize_with = "present")]
            nbf: Option<Time>,
            #[serde(default, deserialize_with = "present")]
            iat: Option<OtherTime>,
            #[serde(default, deserialize_with = "present")]
            jti: Option<TokenId>,
            #[serde(default, deserialize_with = "present")]
            rooms: Option<ReadRooms>,
        }

        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Payload;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Payload, A::Error> {
                let Fields { sub, user_id, aud: _, exp, nbf, iat, jti, rooms } =
                    Fields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Payload { sub, user_id, exp, nbf, iat, jti, rooms })
            }
        }

        deserializer.deserialize_map(Object)
    }
}

fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

struct UserName(Arc<str>);

impl<'de> Deserialize<'de> for UserName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UserName, D::Error> {
        let text = String::deserialize(deserializer)?;
        if is_user_name(&text) { Ok(UserName(Arc::from(text))) } else { Err(D::Error::custom("user name")) }
    }
}

/// A name, or nothing: issuers that know nothing of us write numbers and whatever else into this claim, and where nobody
/// asks for it that must not shut their users out.
struct OtherName(Option<Arc<str>>);

impl<'de> Deserialize<'de> for OtherName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OtherName, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Text(String),
            Other(IgnoredAny),
        }

        Ok(OtherName(match Any::deserialize(deserializer)? {
            Any::Text(text) if is_user_name(&text) => Some(Arc::from(text)),
            Any::Text(_) | Any::Other(_) => None,
        }))
    }
}

/// A name or a list of names, which the library compares. What is neither it takes for no audience at all, and a token that
/// names one is not for whoever likes (found by fuzzing).
struct Audience;

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Audience, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Audience;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }

            fn visit_str<E>(self, _: &str) -> Result<Audience, E> {
                Ok(Audience)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Audience, A::Error> {
                while names.next_element::<String>()?.is_some() {}
                Ok(Audience)
            }
        }

        deserializer.deserialize_any(Names)
    }
}

/// Whole seconds since 1970. A fraction or an exponent is refused (threat row 29): which second `1e300` or `1.5` means is
/// every parser's own opinion.
#[derive(Clone, Copy)]
struct Time(i64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let seconds = i64::deserialize(deserializer)?;
        if (0..=TIME_MAX).contains(&seconds) { Ok(Time(seconds)) } else { Err(D::Error::custom("time")) }
    }
}

/// A time, or nothing: `iat` decides about nobody but whom a revocation speaks of, so an issuer that writes it with a
/// fraction is not to have its users shut out. Rounded down, since what was issued earlier is revoked rather than later.
struct OtherTime(Option<i64>);

impl<'de> Deserialize<'de> for OtherTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OtherTime, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Whole(i64),
            Broken(f64),
            Other(IgnoredAny),
        }

        Ok(OtherTime(match Any::deserialize(deserializer)? {
            Any::Whole(seconds) => Some(seconds),
            Any::Broken(seconds) => Some(seconds.floor() as i64),
            Any::Other(_) => None,
        }))
    }
}

struct TokenId(Arc<str>);

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TokenId, D::Error> {
        let text = String::deserialize(deserializer)?;
        if is_token_id(&text) { Ok(TokenId(Arc::from(text))) } else { Err(D::Error::custom("token id")) }
    }
}

struct ReadRooms(Rights);

impl<'de> Deserialize<'de> for ReadRooms {
    /// Pairs, not a map: a map would let the last of two equal patterns win unseen.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ReadRooms, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(String, Vec<String>)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of room patterns with lists of verbs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }

        let pairs = deserializer.deserialize_map(Pairs)?;
        let grants = pairs.iter().map(|(pattern, verbs)| (pattern.as_str(), verbs.iter().map(String::as_str)));
        Rights::parse(grants).map(ReadRooms).map_err(D::Error::custom)
    }
}

#[derive(Serialize)]
struct Minted<'a> {
    sub: &'a str,
    /// The same again, for the dialect whose clients are named by it: one token for all.
    user_id: &'a str,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<WrittenRooms<'a>>,
}

struct WrittenRooms<'a>(&'a Rights);

impl Serialize for WrittenRooms<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let grants = self.0.grants().map(|(pattern, verbs)| (pattern, verbs.map(Verb::as_str).collect::<Vec<_>>()));
        serializer.collect_map(grants)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    // Made for these tests; they open nothing.
    const RSA_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDW9WSAHu8fzc22
5EW7IAab9badX0tlRtADlj9wuNiR93cMLPfzEXwpDfVSQ+EOahbbtJJ2dUyGUnW3
K0emI/XNvKDJD/CxzPalFs9cbuNXWAO60fo8VdrSp+If6b+9oi1ePjO1GNbDV2Wv
Y2/aw5LsZv80IYtsh4acwp3nXbctAAOR5FQhofzyHSQ4yKl+g2EkYtBNLyRj+7hj
8irZOSQDiY4AHf1wkN/HJVLwS8PZb0mjqjeq8AQ8TR4s3k9PBhB0l79OUq00VzKq
UqUMXEt2bHdEi0MwWzXLlUGm51y9MO0MmQJ2RrphCfrA34xuxWn1HdoaWH8dEMG6
l4TdROGfAgMBAAECggEAAeM6xDNBV06n2UzM3fVMiY8RUPV2xIdoKTfnC7bb1ABP
z9APR1emdvfT6SqGbel5lOlThe3Gw8Eynm6nXOqg7HMVGF7m9rC9k7qNDJs+rNQt
iDTy1RfN6Z6myi/zypcDffne217B+Aoq7uzZHRstjZzj7dHDlyrjgDnnSBJXGvKK
dhYQNE3dARRXSj0+v1NPJXaWjxMhJGTx4mbaXP7T8I+KT2COZ4MiB80lDRQVJhUg
x8fJG/BJPEAUL9XVnV5Df0JB/1B9vjEHsTHnqnu/DbuuIFuzOzzZbj0FmbTdln1I
3kx78vWYPiAoOwKl3ojTm6Fm+aOBbvGKYD7Pz6xX/QKBgQDzN74O0V1O4JuUxugv
jTBMMz4Z91abRCMwjpzvRE1UVV7Non6FXDUizFNbbGQnCp+tidOwqhpQDzpocXRI
0yav9G7k10HCXU/HTXLZKqV6l0cGmE4oAnabPYDdsS679vkOaOUkR7VMCXhw51vH
jvc391QDX5Q4yCCy92oiHS64JQKBgQDiQXNR0+h2fXJFkTjH+qQNtBjqFe3KgQCp
7lw7bT8F/81k/WBmem4t/vfX1T/PcfDPhQNILrLt/ORAx6M1UsejcAhETXrC8kO+
5A87lXb3W9E1DGY2kGMVSgqtCGtRqLGYGMI282LbOkEWkGToKDnH6xncfoAvADWI
EvDdFd61cwKBgGztDxKF05sq3qLf/kalnfbSkEKC0mfROU1a4ZAK7/MQFNhVqQJD
DI0cI0zzm1sc1+yZqJQbapNmbosuHJ0s68ur1ipo+Ut6DOu+lOwLvHbN34JlncMv
bz0Ra3BeFQcbkelRMyZvcxOtviIai7ExJykKfLbSDIjtoC9mvUKv/Sd9AoGAX5FJ
xox9ql7+f4gBteaWmPszctzkXh7zStPVvXw9nKkZ9shXibG5DFCgG1iF5Xe5Qc5r
PngLOB8TwpEQzRs0HELcGw2nBuUR3HW0QXS2lXEBAylDm1SNpZZqv//IZOueaCI9
FrzjSrpmd8Nx++XR0jHp8Iq2ViP+eIWXm6r7MSUCgYEA4COiXYyuth5iWuwy9d8E
lnevu72fuF9f6uKCYLLDULyt/WHpPRXwlLH6dIkCyjJLQ/PIB30SBve3eRDGWWNB
QLWbgE5G7gQ54so8tReZNiRLZcTEwVd4PAjvaVoZ7V/3MLPjQDs7ldRk3EfGRrKS
tZINYS62W2d86sLFHg0kUbs=
-----END PRIVATE KEY-----
";
    const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA1vVkgB7vH83NtuRFuyAG
m/W2nV9LZUbQA5Y/cLjYkfd3DCz38xF8KQ31UkPhDmoW27SSdnVMhlJ1tytHpiP1
zbygyQ/wscz2pRbPXG7jV1gDutH6PFXa0qfiH+m/vaItXj4ztRjWw1dlr2Nv2sOS
7Gb/NCGLbIeGnMKd5123LQADkeRUIaH88h0kOMipfoNhJGLQTS8kY/u4Y/Iq2Tkk
A4mOAB39cJDfxyVS8EvD2W9Jo6o3qvAEPE0eLN5PTwYQdJe/TlKtNFcyqlKlDFxL
dmx3RItDMFs1y5VBpudcvTDtDJkCdka6YQn6wN+MbsVp9R3aGlh/HRDBupeE3UTh
nwIDAQAB
-----END PUBLIC KEY-----
";
    const RSA_1024_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDBS88W6Bo46eEdEDd10gXLMYed
Fg+qAMCv+9llSdh7Ieo2l00Ld0j1qdWs9o7Rza2BLPPBDXaucwwhW4uH6dhIWO1x
9PBuu+5rlZUXOK5pTySNam06iJD9vonluwgyWOx/k+Z1ZKxDvhNr0qHG/Tb/KPC0
oYiOX2qj5MoGWvpWcwIDAQAB
-----END PUBLIC KEY-----
";
    const EC_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgMY1yaxbpKGm76xIT
m7ic1v1hSHOHQbNKYP8Lq7JMKyihRANCAAR3B67ZvjO0EGYcfdAPwDnRQRThMy/V
ajYGdcMhKFYllCUj2B0kjPbiP4I0+WuMWXBSRSx3bQI77cXjBQ9o4Qwm
-----END PRIVATE KEY-----
";
    const EC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEdweu2b4ztBBmHH3QD8A50UEU4TMv
1Wo2BnXDIShWJZQlI9gdJIz24j+CNPlrjFlwUkUsd20CO+3F4wUPaOEMJg==
-----END PUBLIC KEY-----
";
    const P384_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEpjJygz92mO5f/5xDDL0Jtpz49dJx/uK+
Wx0pIK2mGztIqbhP+wYTHnvLKK5vNFxJ5KYWi7iq45iMiqSQNoJtUrd5PJ2vD/G5
MWha6F6WsXhWQA2ccMosq3ZqfXk66UCC
-----END PUBLIC KEY-----
";
    const ED_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIKlHySfPrG4jtvd6S8KDhNMiqvE6WVKlbNl1ysKwwkgn
-----END PRIVATE KEY-----
";
    const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAzrhUOF+EUCnp2pU9qgFktm++4ygYEa3Ockmpva2dcas=
-----END PUBLIC KEY-----
";

    const SECRET: &[u8] = b"a secret of thirty-two bytes or more";
    const SECOND: i64 = 1_700_000_000;
    const NOW: Wall = Wall(SECOND * 1_000_000);
    const GOOD: &str = r#"{"sub":"alice","exp":1700000100,"aud":"cast","iss":"us"}"#;

    fn at(second: i64) -> Wall {
        Wall(second * 1_000_000)
    }

    /// One key of each kind, and every rule switched on.
    fn full_ring() -> KeyRing {
        let mut ring = KeyRing::new(Rules {
            require_exp: true,
            audience: vec!["cast".to_string(), "other".to_string()],
            issuer: vec!["us".to_string()],
        });
        ring.add(Some("hs"), Algorithm::Hs256, SECRET).unwrap();
        ring.add(Some("rs"), Algorithm::Rs256, RSA_PUBLIC.as_bytes()).unwrap();
        ring.add(Some("es"), Algorithm::Es256, EC_PUBLIC.as_bytes()).unwrap();
        ring.add(Some("ed"), Algorithm::EdDsa, ED_PUBLIC.as_bytes()).unwrap();
        ring
    }

    fn plain_ring() -> KeyRing {
        let mut ring = KeyRing::default();
        ring.add(None, Algorithm::Hs256, SECRET).unwrap();
        ring
    }

    fn base64url(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = (0..3).fold(0u32, |word, at| word << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
            for at in 0..=chunk.len() {
                text.push(ALPHABET[(word >> (18 - 6 * at)) as usize & 63] as char);
            }
        }
        text
    }

    fn sign_with(
        header: &str,
        payload: impl AsRef<[u8]>,
        key: &EncodingKey,
        algorithm: jsonwebtoken::Algorithm,
    ) -> String {
        let message = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_ref()));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// Whatever is written is signed with the right secret: what is refused then is refused for what it says.
    fn sign(header: &str, payload: impl AsRef<[u8]>) -> String {
        sign_with(header, payload, &EncodingKey::from_secret(SECRET), jsonwebtoken::Algorithm::HS256)
    }

    const HS: &str = r#"{"alg":"HS256","kid":"hs"}"#;

    #[test]
    fn a_good_token_says_who_it_is_for_each_algorithm() {
        use jsonwebtoken::Algorithm as Library;
        let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
        let ec = EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).unwrap();
        let ed = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
        let hs = EncodingKey::from_secret(SECRET);
        for (kid, name, key, algorithm) in [
            ("hs", "HS256", &hs, Library::HS256),
            ("rs", "RS256", &rsa, Library::RS256),
            ("es", "ES256", &ec, Library::ES256),
            ("ed", "EdDSA", &ed, Library::EdDSA),
        ] {
            let header = format!(r#"{{"typ":"JWT","alg":"{name}","kid":"{kid}"}}"#);
            let token = sign_with(&header, GOOD, key, algorithm);
            let claims = full_ring().verify(&token, NOW).unwrap();
            assert_eq!((&*claims.sub, claims.exp), ("alice", Some(1_700_000_100)), "{name}");
            // The same signature over another user's claims, and the same claims with one bit of signature turned.
            let other = base64url(GOOD.replace("alice", "admin").as_bytes());
            let parts: Vec<&str> = token.split('.').collect();
            let moved = format!("{}.{}.{}", parts[0], other, parts[2]);
            assert_eq!(full_ring().verify(&moved, NOW), Err(TokenError::Signature), "{name}");
            let first = if parts[2].starts_with('A') { 'B' } else { 'A' };
            let turned = format!("{}.{}.{first}{}", parts[0], parts[1], &parts[2][1..]);
            assert_eq!(full_ring().verify(&turned, NOW), Err(TokenError::Signature), "{name}");
        }
    }

    #[test]
    fn hs384_and_hs512_are_pinned_as_well() {
        use jsonwebtoken::Algorithm as Library;
        let all = [
            (Algorithm::Hs256, Library::HS256),
            (Algorithm::Hs384, Library::HS384),
            (Algorithm::Hs512, Library::HS512),
        ];
        for (pinned, _) in all {
            let mut ring = KeyRing::default();
            ring.add(None, pinned, SECRET).unwrap();
            for (shown, library) in all {
                let header = format!(r#"{{"alg":"{}"}}"#, shown.as_str());
                let token = sign_with(&header, r#"{"sub":"a"}"#, &EncodingKey::from_secret(SECRET), library);
                let expected = if pinned == shown { Ok(()) } else { Err(TokenError::Algorithm) };
                assert_eq!(ring.verify(&token, NOW).map(|_| ()), expected, "{pinned:?} {shown:?}");
            }
        }
    }

    #[test]
    fn forged_headers_are_refused() {
        use TokenError::*;
        let huge_kid = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(1 << 20));
        for (header, expected) in [
            (r#"{"alg":"none","kid":"hs"}"#, Malformed),
            (r#"{"alg":"None","kid":"hs"}"#, Malformed),
            (r#"{"alg":"nOnE","kid":"hs"}"#, Malformed),
            (r#"{"alg":"","kid":"hs"}"#, Malformed),
            (r#"{"alg":null,"kid":"hs"}"#, Malformed),
            (r#"{"alg":["HS256"],"kid":"hs"}"#, Malformed),
            (r#"{"alg":"hs256","kid":"hs"}"#, Malformed),
            (r#"{"kid":"hs"}"#, Malformed),
            (r#"{"alg":"HS256","alg":"none","kid":"hs"}"#, Malformed),
            (r#"{"alg":"HS256","kid":"hs","kid":"rs"}"#, Malformed),
            (r#"{"alg":"HS256","kid":7}"#, Malformed),
            (r#"["JWT","HS256"]"#, Malformed),
            ("\"HS256\"", Malformed),
            ("", Malformed),
            (r#"{"alg":"HS256","kid":"hs"} {}"#, Malformed),
            (r#"{"alg":"HS512","kid":"hs"}"#, Algorithm),
            (r#"{"alg":"RS256","kid":"hs"}"#, Algorithm),
            (r#"{"alg":"HS256","kid":"rs"}"#, Algorithm),
            (r#"{"alg":"HS256","kid":"es"}"#, Algorithm),
            (r#"{"alg":"HS256","kid":"ed"}"#, Algorithm),
            (r#"{"alg":"PS256","kid":"rs"}"#, Algorithm),
            (r#"{"alg":"ES384","kid":"es"}"#, Algorithm),
            (r#"{"alg":"RS256","kid":"rs"}"#, Signature),
            (r#"{"alg":"ES256","kid":"es"}"#, Signature),
            (r#"{"alg":"EdDSA","kid":"ed"}"#, Signature),
            (r#"{"alg":"HS384"}"#, UnknownKey),
            (r#"{"alg":"RS256"}"#, Signature),
            (r#"{"alg":"HS256","kid":""}"#, UnknownKey),
            (r#"{"alg":"HS256","kid":"HS"}"#, UnknownKey),
            (r#"{"alg":"HS256","kid":"hs\u0000"}"#, UnknownKey),
            (r#"{"alg":"HS256","kid":"../../../../etc/passwd"}"#, UnknownKey),
            (r#"{"alg":"HS256","kid":"https://evil.net/key.pem"}"#, UnknownKey),
            (r#"{"alg":"HS256","kid":"x' UNION SELECT 'a"}"#, UnknownKey),
            (r#"{"alg":"HS384","jku":"https://evil.net/keys","x5u":"https://evil.net/c"}"#, UnknownKey),
            (&huge_kid, TooLong),
            (r#"{"alg":"HS256","kid":"hs","crit":["b64"],"b64":false}"#, Critical),
            (r#"{"alg":"HS256","kid":"hs","crit":["exp"]}"#, Critical),
            (r#"{"alg":"HS256","kid":"hs","crit":[]}"#, Critical),
            (r#"{"alg":"HS256","kid":"hs","crit":"exp"}"#, Malformed),
        ] {
            let shown: String = header.chars().take(80).collect();
            assert_eq!(full_ring().verify(&sign(header, GOOD), NOW), Err(expected), "{shown}");
        }
        assert!(full_ring().verify(&sign(HS, GOOD), NOW).is_ok());
    }

    #[test]
    fn a_key_shown_in_the_header_is_not_believed() {
        let own = base64url(b"the attacker's own secret");
        let header = format!(r#"{{"alg":"HS256","kid":"hs","jwk":{{"kty":"oct","k":"{own}"}}}}"#);
        let key = EncodingKey::from_secret(b"the attacker's own secret");
        let token = sign_with(&header, GOOD, &key, jsonwebtoken::Algorithm::HS256);
        assert_eq!(full_ring().verify(&token, NOW), Err(TokenError::Signature));
    }

    #[test]
    fn a_public_key_is_no_secret() {
        for (kid, public) in [("rs", RSA_PUBLIC), ("es", EC_PUBLIC), ("ed", ED_PUBLIC)] {
            for material in [public, public.trim_end()] {
                let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
                let key = EncodingKey::from_secret(material.as_bytes());
                let token = sign_with(&header, GOOD, &key, jsonwebtoken::Algorithm::HS256);
                assert_eq!(full_ring().verify(&token, NOW), Err(TokenError::Algorithm), "{kid}");
            }
        }
    }

    #[test]
    fn forged_claims_are_refused() {
        use TokenError::*;
        let long_sub = format!(r#"{{"sub":"{}","exp":1700000100,"aud":"cast","iss":"us"}}"#, "é".repeat(257));
        for (payload, expected) in [
            (r#"{"sub":"a","aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":null,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":"1700000100","aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100.5,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1.7000001e9,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1e300,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1e999,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":NaN,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":18446744073709551615,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":9223372036854775807,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":253402300800,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":-1,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":true,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":[1700000100],"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":0,"aud":"cast","iss":"us"}"#, Expired),
            (r#"{"sub":"a","exp":1699999990,"aud":"cast","iss":"us"}"#, Expired),
            (r#"{"sub":"a","exp":1700000100,"nbf":1700000006,"aud":"cast","iss":"us"}"#, NotYetValid),
            (r#"{"sub":"a","exp":1700000100,"nbf":"1699999999","aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"nbf":1e300,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"nbf":null,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":7,"iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"evil","iss":"us"}"#, Audience),
            (r#"{"sub":"a","exp":1700000100,"aud":["evil","bad"],"iss":"us"}"#, Audience),
            (r#"{"sub":"a","exp":1700000100,"aud":[],"iss":"us"}"#, Audience),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"them"}"#, Issuer),
            (r#"{"exp":1700000100,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"","exp":1700000100,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":7,"exp":1700000100,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":null,"exp":1700000100,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a\nb","exp":1700000100,"aud":"cast","iss":"us"}"#, Claims),
            (&long_sub, Claims),
            (r#"{"sub":"a","sub":"b","exp":1700000100,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1,"exp":1700000100,"aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"evil","aud":"cast","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"them","iss":"us"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","rooms":{},"rooms":{"*":["read"]}}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","jti":"a","jti":"b"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","jti":7}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","jti":""}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","rooms":null}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","rooms":"*"}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","rooms":["*"]}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","rooms":{"*":"read"}}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","rooms":{"*":["own"]}}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","rooms":{"a*b":["read"]}}"#, Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us","rooms":{"a":["read"],"a":["write"]}}"#, Claims),
            (r#"["a",1700000100,0,"us","cast"]"#, Claims),
            (r#"[1700000100,0,"a","us","cast"]"#, Claims),
            (r#""a""#, Claims),
            ("null", Claims),
            ("17", Claims),
            ("", Claims),
            ("{", Claims),
            (r#"{"sub":"a","exp":1700000100,"aud":"cast","iss":"us"}{}"#, Claims),
        ] {
            assert_eq!(full_ring().verify(&sign(HS, payload), NOW), Err(expected), "{payload}");
        }
    }

    /// Found by fuzzing. A text of nobody's is skipped by the JSON parser and not looked at; but what is not JSON as a whole is
    /// no set of claims (RFC 7519 7.2).
    #[test]
    fn a_claim_that_nobody_asks_for_is_text_too() {
        let with = |city: &[u8]| [&br#"{"sub":"alice","city":""#[..], city, br#""}"#].concat();
        let verify = |payload| plain_ring().verify(&sign(r#"{"alg":"HS256"}"#, payload), NOW);
        assert!(verify(with("K\u{f6}ln".as_bytes())).is_ok());
        assert_eq!(verify(with(b"K\xf6ln")), Err(TokenError::Claims));
    }

    /// Found by fuzzing: `aud` as a number was no audience.
    #[test]
    fn an_audience_is_a_name_or_names() {
        let verify =
            |aud: &str| plain_ring().verify(&sign(r#"{"alg":"HS256"}"#, format!(r#"{{"sub":"a",{aud}}}"#)), NOW);
        for aud in ["1700000100", "null", "true", "{}", "[1]", r#"["x",null]"#] {
            assert_eq!(verify(&format!(r#""aud":{aud}"#)), Err(TokenError::Claims), "{aud}");
        }
        for aud in [r#""x""#, r#"["x"]"#, "[]"] {
            assert_eq!(verify(&format!(r#""aud":{aud}"#)), Err(TokenError::Audience), "{aud}");
        }
        assert!(verify(r#""nbf":0"#).is_ok());
    }

    #[test]
    fn claims_have_names_not_places() {
        // Through `verify` the library would refuse these by chance, because its own list has another order.
        for payload in [r#"["a"]"#, r#"["a",1700000100]"#, r#"["a",1700000100,0,"id",{}]"#] {
            assert!(serde_json::from_str::<Payload>(payload).is_err(), "{payload}");
        }
        assert!(serde_json::from_str::<Payload>(r#"{"sub":"a"}"#).is_ok());
    }

    #[test]
    fn invalid_utf8_in_the_payload_is_refused() {
        let payload = base64url(b"{\"sub\":\"\xff\xfe\"}");
        let message = format!("{}.{payload}", base64url(br#"{"alg":"HS256"}"#));
        let key = EncodingKey::from_secret(SECRET);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
        let verdict = plain_ring().verify(&format!("{message}.{signature}"), NOW);
        assert_eq!(verdict, Err(TokenError::Claims));
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let good = sign(HS, GOOD);
        let parts: Vec<&str> = good.split('.').collect();
        let (header, payload, signature) = (parts[0], parts[1], parts[2]);
        let none = base64url(br#"{"alg":"none"}"#);
        for damaged in [
            String::new(),
            ".".to_string(),
            "..".to_string(),
            "...".to_string(),
            header.to_string(),
            format!("{header}.{payload}"),
            format!("{header}.{payload}."),
            format!("{none}.{payload}."),
            format!(".{payload}.{signature}"),
            format!("{header}..{signature}"),
            format!("{good}."),
            format!(".{good}"),
            format!("{good}.{signature}"),
            format!("{header}.{payload}.{payload}.{signature}"),
            format!("{good}="),
            format!("{header}=.{payload}.{signature}"),
            format!("{header}.{payload}.{signature}A"),
            format!("{header}.{payload}.!{}", &signature[1..]),
            format!("{header}.{payload}.+{}", &signature[1..]),
            format!(" {good}"),
            format!("{good}\n"),
            format!("Bearer {good}"),
            good.to_uppercase(),
            format!("é{good}"),
        ] {
            assert!(full_ring().verify(&damaged, NOW).is_err(), "{damaged}");
        }
        for end in 0..good.len() {
            assert!(full_ring().verify(&good[..end], NOW).is_err(), "cut at {end}");
        }
        assert!(full_ring().verify(&good, NOW).is_ok());
    }

    #[test]
    fn length_is_bounded_exactly() {
        let of_length = |wanted: usize| {
            (0..wanted)
                .map(|pad| sign(r#"{"alg":"HS256"}"#, format!(r#"{{"sub":"a","pad":"{}"}}"#, "x".repeat(pad))))
                .find(|token| token.len() >= wanted)
                .unwrap()
        };
        let fits = of_length(TOKEN_BYTES_MAX);
        assert_eq!(fits.len(), TOKEN_BYTES_MAX);
        assert!(plain_ring().verify(&fits, NOW).is_ok());
        let over = of_length(TOKEN_BYTES_MAX + 1);
        assert_eq!(plain_ring().verify(&over, NOW), Err(TokenError::TooLong));
    }

    #[test]
    fn time_is_the_callers_and_the_leeway_exact() {
        let token = sign(r#"{"alg":"HS256"}"#, r#"{"sub":"a","nbf":1700000000,"exp":1700000100}"#);
        for (second, expected) in [
            (0, Err(TokenError::NotYetValid)),
            (1_699_999_994, Err(TokenError::NotYetValid)),
            (1_699_999_995, Ok(())),
            (1_700_000_104, Ok(())),
            (1_700_000_105, Err(TokenError::Expired)),
            (9_000_000_000, Err(TokenError::Expired)),
        ] {
            assert_eq!(plain_ring().verify(&token, at(second)).map(|_| ()), expected, "{second}");
        }
        for clock in [Wall(i64::MIN), Wall(i64::MAX)] {
            assert!(plain_ring().verify(&token, clock).is_err());
        }
    }

    #[test]
    fn what_is_not_configured_is_not_required_but_a_foreign_audience_is_refused() {
        let header = r#"{"alg":"HS256"}"#;
        let claims = plain_ring().verify(&sign(header, r#"{"sub":"a","iss":"any","custom":{"x":[1]}}"#), NOW).unwrap();
        let key = claims.key.clone();
        let expected = Claims { sub: Arc::from("a"), user_id: None, exp: None, iat: None, jti: None, key, rooms: None };
        assert_eq!(claims, expected);
        let addressed = sign(header, r#"{"sub":"a","aud":"somebody"}"#);
        assert_eq!(plain_ring().verify(&addressed, NOW), Err(TokenError::Audience));
        let either = sign(HS, r#"{"sub":"a","exp":1700000100,"aud":["x","other"],"iss":"us"}"#);
        assert!(full_ring().verify(&either, NOW).is_ok());
    }

    #[test]
    fn all_claims_are_read() {
        let payload = r#"{"sub":"a","exp":1700000100,"jti":"t-1","rooms":{"doc:*":["read","write"],"logs":[]}}"#;
        let claims = plain_ring().verify(&sign(r#"{"alg":"HS256"}"#, payload), NOW).unwrap();
        let rooms = claims.rooms.unwrap();
        assert_eq!(claims.jti.as_deref(), Some("t-1"));
        assert!(rooms.allows("doc:a", Verb::Write) && !rooms.allows("logs", Verb::Read));
        let empty = plain_ring().verify(&sign(r#"{"alg":"HS256"}"#, r#"{"sub":"a","rooms":{}}"#), NOW).unwrap();
        assert_eq!(empty.rooms, Some(Rights::default()));
    }

    #[test]
    fn a_token_without_kid_is_tried_with_each_key_of_its_algorithm() {
        let token = sign(r#"{"alg":"HS256"}"#, r#"{"sub":"a"}"#);
        let named = sign(r#"{"alg":"HS256","kid":"one"}"#, r#"{"sub":"a"}"#);
        let mut ring = KeyRing::default();
        assert!(ring.is_empty());
        assert_eq!(ring.verify(&token, NOW), Err(TokenError::UnknownKey));
        ring.add(Some("one"), Algorithm::Hs256, SECRET).unwrap();
        assert!(ring.verify(&token, NOW).is_ok() && ring.verify(&named, NOW).is_ok());
        ring.add(Some("two"), Algorithm::Hs256, b"another").unwrap();
        assert!(ring.verify(&token, NOW).is_ok() && ring.verify(&named, NOW).is_ok());
        ring.add(None, Algorithm::Hs256, b"a third").unwrap();
        ring.add(None, Algorithm::Hs256, b"a fourth").unwrap();
        ring.add(None, Algorithm::EdDsa, ED_PUBLIC.as_bytes()).unwrap();
        for (secret, expected) in [
            (SECRET, Ok(Some(0))),
            (b"another", Ok(Some(1))),
            (b"a third", Ok(Some(2))),
            (b"a fourth", Ok(Some(3))),
            (b"a fifth", Err(TokenError::Signature)),
            // A public key is nobody's secret, whichever ways lead to it.
            (ED_PUBLIC.as_bytes(), Err(TokenError::Signature)),
        ] {
            let key = EncodingKey::from_secret(secret);
            let token = sign_with(r#"{"alg":"HS256"}"#, r#"{"sub":"a"}"#, &key, jsonwebtoken::Algorithm::HS256);
            let verified = ring.verify(&token, NOW);
            let place = |claims: Claims| ring.keys.iter().position(|key| Arc::ptr_eq(&key.identity, &claims.key));
            assert_eq!(verified.map(place), expected, "{secret:?}");
        }
        // The first key whose signature fits decides, with whatever the token says then.
        let late = sign(r#"{"alg":"HS256"}"#, r#"{"sub":"a","exp":1}"#);
        assert_eq!(ring.verify(&late, NOW), Err(TokenError::Expired));
        assert_eq!(plain_ring().verify(&named, NOW), Err(TokenError::UnknownKey));
    }

    #[test]
    fn keys_that_cannot_work_are_refused_at_once() {
        for (algorithm, material, expected) in [
            (Algorithm::Hs256, "", KeyError::EmptySecret),
            (Algorithm::Hs512, RSA_PUBLIC, KeyError::PemAsSecret),
            (Algorithm::Rs256, RSA_PRIVATE, KeyError::PrivateKey),
            (Algorithm::Es256, EC_PRIVATE, KeyError::PrivateKey),
            (Algorithm::Rs256, RSA_1024_PUBLIC, KeyError::WeakRsa),
            (Algorithm::Rs256, EC_PUBLIC, KeyError::WrongKind),
            (Algorithm::Es256, RSA_PUBLIC, KeyError::WrongKind),
            (Algorithm::Es256, P384_PUBLIC, KeyError::WrongKind),
            (Algorithm::EdDsa, EC_PUBLIC, KeyError::WrongKind),
            (Algorithm::Rs256, "not a key", KeyError::WrongKind),
            (Algorithm::Rs256, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", KeyError::WrongKind),
        ] {
            let added = KeyRing::default().add(None, algorithm, material.as_bytes());
            assert_eq!(added, Err(expected), "{algorithm:?} {material}");
        }
        let mut ring = plain_ring();
        ring.add(Some("a"), Algorithm::Hs256, SECRET).unwrap();
        assert_eq!(ring.add(Some("a"), Algorithm::EdDsa, ED_PUBLIC.as_bytes()), Err(KeyError::KidRepeated));
    }

    #[test]
    fn a_key_is_the_same_over_a_reload_by_its_algorithm_and_material() {
        let token = sign(r#"{"alg":"HS256"}"#, r#"{"sub":"a"}"#);
        let key = plain_ring().verify(&token, NOW).unwrap().key;
        for (kid, algorithm, secret, expected) in [
            (None, Algorithm::Hs256, SECRET, true),
            (Some("a"), Algorithm::Hs256, SECRET, true),
            (None, Algorithm::Hs512, SECRET, false),
            (None, Algorithm::Hs256, &b"another"[..], false),
        ] {
            let mut ring = KeyRing::default();
            ring.add(Some("other"), Algorithm::Hs256, b"other").unwrap();
            ring.add(kid, algorithm, secret).unwrap();
            assert_eq!(ring.has(&key), expected, "{kid:?} {algorithm:?}");
        }
    }

    #[test]
    fn when_a_token_was_issued_shuts_nobody_out() {
        let issued = |iat: &str| {
            let payload = format!(r#"{{"sub":"a","iat":{iat}}}"#);
            plain_ring().verify(&sign(r#"{"alg":"HS256"}"#, &payload), NOW).map(|claims| claims.iat)
        };
        for (iat, expected) in [
            ("1700000000", Some(1_700_000_000)),
            ("1700000000.9", Some(1_700_000_000)),
            ("-1.5", Some(-2)),
            ("1e300", Some(i64::MAX)),
            ("\"1700000000\"", None),
            ("null", None),
            ("[1]", None),
        ] {
            assert_eq!(issued(iat), Ok(expected), "{iat}");
        }
        assert_eq!(issued("1,\"iat\":2"), Err(TokenError::Claims), "which of two would it be?");
    }

    #[test]
    fn algorithms_are_named_as_in_the_rfcs() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.as_str()), Some(algorithm));
            let library = serde_json::to_string(&algorithm.of_library()).unwrap();
            assert_eq!(library, format!("\"{}\"", algorithm.as_str()));
        }
        assert_eq!(Algorithm::parse("none"), None);
    }

    #[test]
    fn a_minted_token_is_believed_until_it_expires() {
        let rooms = Rights::parse([("doc:*", ["read", "write"]), ("\"\\", ["read", "read"])]).unwrap();
        let order = Mint {
            sub: "alice \"é\"",
            ttl: Some(Duration::from_secs(60)),
            rooms: Some(&rooms),
            kid: Some("hs"),
            jti: Some("t-1"),
            audience: Some("cast"),
            issuer: Some("us"),
        };
        let token = mint(SECRET, &order, NOW).unwrap();
        let claims = full_ring().verify(&token, NOW).unwrap();
        assert_eq!((&*claims.sub, claims.exp), ("alice \"é\"", Some(SECOND + 60)));
        assert_eq!((claims.iat, claims.jti.as_deref()), (Some(SECOND), Some("t-1")));
        assert_eq!(claims.rooms, Some(rooms));
        assert_eq!(full_ring().verify(&token, at(SECOND + 65)), Err(TokenError::Expired));
        let forever = mint(SECRET, &Mint { sub: "a", ttl: Some(Duration::MAX), ..Mint::default() }, NOW).unwrap();
        assert_eq!(plain_ring().verify(&forever, NOW).unwrap().exp, Some(TIME_MAX));
        let plain = mint(SECRET, &Mint { sub: "a", ..Mint::default() }, NOW).unwrap();
        assert_eq!(plain_ring().verify(&plain, NOW).unwrap().exp, None);
    }

    #[test]
    fn the_claim_user_id_is_a_name_or_nothing() {
        let named = |claim: &str| {
            let claims = plain_ring().verify(&sign(r#"{"alg":"HS256"}"#, format!(r#"{{"sub":"s"{claim}}}"#)), NOW)?;
            Ok(claims.user_id.map(|user_id| user_id.to_string()))
        };
        let name = |text: &str| Ok(Some(text.to_owned()));
        let long = format!(r#","user_id":"{}""#, "a".repeat(USER_CHARS_MAX + 1));
        for (claim, expected) in [
            ("", Ok(None)),
            (r#","user_id":"u-1""#, name("u-1")),
            (r#","user_id":"\u00fc""#, name("ü")),
            (r#","user_id":7"#, Ok(None)),
            (r#","user_id":-1.5e3"#, Ok(None)),
            (r#","user_id":null"#, Ok(None)),
            (r#","user_id":true"#, Ok(None)),
            (r#","user_id":["u-1"]"#, Ok(None)),
            (r#","user_id":{"id":"u-1"}"#, Ok(None)),
            (r#","user_id":"""#, Ok(None)),
            (r#","user_id":"a\nb""#, Ok(None)),
            (&long, Ok(None)),
            (r#","user_id":"a","user_id":"b""#, Err(TokenError::Claims)),
        ] {
            assert_eq!(named(claim), expected, "{claim}");
        }
        let minted = mint(SECRET, &Mint { sub: "ann", ..Mint::default() }, NOW).unwrap();
        assert_eq!(plain_ring().verify(&minted, NOW).unwrap().user_id.as_deref(), Some("ann"));
    }

    #[test]
    fn no_token_is_minted_that_would_be_refused() {
        let long = "a".repeat(USER_CHARS_MAX + 1);
        for sub in ["", "a\u{0}", &long] {
            assert_eq!(mint(SECRET, &Mint { sub, ..Mint::default() }, NOW), Err(MintError::User));
        }
        for jti in ["", &"a".repeat(JTI_BYTES_MAX + 1)] {
            assert_eq!(
                mint(SECRET, &Mint { sub: "a", jti: Some(jti), ..Mint::default() }, NOW),
                Err(MintError::TokenId)
            );
        }
        assert_eq!(mint(b"", &Mint { sub: "a", ..Mint::default() }, NOW), Err(MintError::EmptySecret));
        let names: Vec<String> = (0..400).map(|number| format!("doc:{number}")).collect();
        let rooms = Rights::parse(names.iter().map(|name| (name.as_str(), ["read"]))).unwrap();
        let order = Mint { sub: "a", rooms: Some(&rooms), ..Mint::default() };
        assert_eq!(mint(SECRET, &order, NOW), Err(MintError::TooLong));
    }

    #[test]
    fn neither_secrets_nor_tokens_are_shown() {
        let shown = format!("{:?} {:?}", plain_ring(), full_ring());
        assert!(!shown.contains("a secret of thirty") && !shown.contains("97, 32, 115"), "{shown}");
        assert!(shown.contains("Hs256"), "{shown}");
        let canary = sign(HS, r#"{"sub":"canary","exp":"canary"}"#);
        let error = full_ring().verify(&canary, NOW).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    proptest! {
        #[test]
        fn hostile_text_is_refused(token in "\\PC{0,80}|[A-Za-z0-9_.=-]{0,200}|ey[A-Za-z0-9_-]{0,60}\\.ey[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{43}") {
            prop_assert!(full_ring().verify(&token, NOW).is_err());
        }

        #[test]
        fn hostile_headers_and_claims_are_refused(
            header in "\\{(\"(alg|kid|crit|typ|jwk)\":(\"HS256\"|\"none\"|7|null|\\[\\]|\\{\\}),?){0,4}\\}",
            payload in "\\{(\"(exp|nbf|aud|iss|jti|rooms)\":(\"a\"|1e9|7|null|\\[\\]|\\{\\}),?){0,4}\\}",
        ) {
            // Signed, but never with a `sub`.
            prop_assert!(plain_ring().verify(&sign(&header, &payload), NOW).is_err());
        }

        #[test]
        fn one_changed_byte_is_noticed(at in 0usize..1_000, with in proptest::sample::select(b"Aa0_.-=".to_vec())) {
            let good = sign(HS, GOOD);
            let mut bytes = good.clone().into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != with);
            bytes[at] = with;
            prop_assert!(full_ring().verify(&String::from_utf8(bytes).unwrap(), NOW).is_err());
        }
    }
}
