//! Tokens (JWT) as an issuer makes them, and the key sets that it publishes.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaEncoding, RsaKeyPair};
use ring::{hmac, hmac::HMAC_SHA256};
use serde_json::{Value, json};

/// A key of 2048 bits that nothing but tests knows: ring makes none. PKCS#1 in Base64.
const RSA: &str = "\
    MIIEogIBAAKCAQEAnYcChXbXS2HZ0mAn/aQiI2Z2jnW49FwK3U70Xms+gKNxJdGZKfoqI2kOSMRxabzjxcSDWyp6a/A4B7TNonkN\
    b9GHjcFZhdpmYVdxxL3kQ1Dd1XzSB+wbzLoZ8CI5ApeDZtXW4z3Cl7Qrm/B/cL/5qb1gNYoFFe+YwKewFya2abiUSdIqmmeK0q1l\
    MTejObUKYoa1u4Vw2yNXRvuemLPtjTutd5bvIQsTPyGTwzpP1U6w2HDehxFT2guLgowbIvTg8qXGrJ94v20IahSA8FSdbqkVv90d\
    I+9aOHEQgq996GLceTJdR6pEAu3pll6PSaSYbAGBq4N/+PDfKNzdbs+JAQIDAQABAoIBAA7oL6m6oSK95p4ybEZj6bkeNqTs6Kzz\
    KDILiTOFhDt/JrN0qMELWUEoQr+fG2PCtMP1K0Bi04VIYmepnqC77N9tMsiMM1u9MF1mKDAn5M8mpWomWZKCBPAe7QUc7/aEqQd/\
    v/SZgRiDERy81F/dQuk4WxTl8+zrU1y+jFA8i8boQv9r/KKcduhYROl01KjhaTTtPHIsckjU9dzLx3bvfKeaUaZ6WarUkmBxxTey\
    kHme/PG+Aqz/UNhW15CcL7Ly+aZMu/RBb4qqlTMMKhPfvaGJwi9IUkKijn2V+H7ILIdC+2LKvpG8muyLEba313n1CH1Xy7h/Nwfk\
    QaW530T+IRMCgYEA3dGK3is5lOKbur7FfIC+lz4v1izMJaz9BL16yNHRrdyiFX1LnRpp5JqhOGxwtR30h+7l5fd8nG9rEc4cA2aB\
    HeMpajFGuMfVGiYkBv18VQA5ySvNjWXSvnCEYaft1bPNGLZ9OtFQer7s2ylGJrqLwFenxr2VSC6Aon0viy2BrQ8CgYEAtc1Dj4AU\
    LMNSt2Ypm2gy+wP8jhzVxTpptvTJPyv0i4cd1prhPI3HLxUMB0OBgUf/xZSrh2ySD39jj0uWhErAVe4xYgGynuYwip1YtI/cTOtQ\
    AEmvKx9EcY+yzslWReIzSiab5hZDB0emkGmwB1fy93oDe9uub2pfVP2z5gJBiO8CgYBZ4drfg6xlhB2OYlcryA9ywaQoqSZf7eTo\
    0s66KStJxCl5g7fsBRP7qhzB/E7/VRANNOS7drlrukosgNQhHJwdPDs/6I+7uF3FpsbafkSvPNQtjC5SqXvn5zf9Skq5WY42AVxl\
    RQPTeSII/ISMlPKkEeDOS2v+P7moHgnx35K4SQKBgGvG2DqGL2+qC6t2AUyEJVTyNBL7vS9DRdCUpYmxwTPGUkYbY1PGqUKcM5lK\
    x8egq1yymk2aa6yMVLVqljyvI/7NSrFTWFUjGbvTM/c3Id7n0XGaPSJPUwAPtG0qpt6fDtDyupFYuTvjmjcasKRp2zwjNVWEEpEy\
    enmkPbYpuDg5AoGAJyAqU/FGbosVqGHLyH4paKwrzZedZ/af4va+mTxVEmKrqIaKEUzAzJhPgmKIKi7/Efr9eKg49FGgyOByhKyM\
    jravqfbOOQqk7m135+VXriR8UxAij/sJXRRcV8nOY+34utQcgd05hpTDLetK18lyeJqiJlDGibXEELpnMW1Vccw=";

/// What signs.
pub enum Signer {
    Hs256(Vec<u8>),
    Rs256,
    Ps256,
    Es256(KeyPair),
    EdDsa(KeyPair),
}

/// Seconds of Unix time, so many from now.
pub fn in_secs(secs: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + secs
}

pub fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub fn es256() -> Self {
        Self::Es256(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    pub fn ed_dsa() -> Self {
        Self::EdDsa(KeyPair::generate_for(&PKCS_ED25519).unwrap())
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    /// A token with these claims and the key's id.
    pub fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({"alg": self.algorithm(), "typ": "JWT"});
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        self.signed(&header, claims)
    }

    /// A token with this header.
    pub fn signed(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", encoded(signature))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let key = rsa();
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(encoding, &random, message, &mut signature).unwrap();
            signature
        };
        match self {
            Self::Hs256(secret) => hmac::sign(&hmac::Key::new(HMAC_SHA256, secret), message).as_ref().to_vec(),
            Self::Rs256 => rsa(&signature::RSA_PKCS1_SHA256),
            Self::Ps256 => rsa(&signature::RSA_PSS_SHA256),
            Self::Es256(key) => {
                let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
                let key = EcdsaKeyPair::from_pkcs8(algorithm, key.serialized_der(), &random).unwrap();
                key.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Self::EdDsa(key) => {
                let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.serialized_der()).unwrap();
                key.sign(message).as_ref().to_vec()
            }
        }
    }

    /// The public key as one of a published set.
    pub fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Hs256(secret) => json!({"kty": "oct", "kid": kid, "k": encoded(secret)}),
            Self::Rs256 | Self::Ps256 => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(rsa().public());
                // with a leading zero, as some issuers write it
                let modulus = [&[0], &*parts.n].concat();
                json!({"kty": "RSA", "kid": kid, "use": "sig", "n": encoded(modulus), "e": encoded(parts.e)})
            }
            Self::Es256(key) => {
                let point = key.der_bytes();
                let (x, y) = point[point.len() - 64..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "x": encoded(x), "y": encoded(y)})
            }
            Self::EdDsa(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encoded(key.der_bytes())})
            }
        }
    }

    /// The public key in PEM.
    pub fn pem(&self) -> String {
        match self {
            Self::Hs256(_) => String::new(),
            Self::Rs256 | Self::Ps256 => {
                let key = STANDARD.encode(rsa().public().as_ref());
                format!("-----BEGIN RSA PUBLIC KEY-----\n{key}\n-----END RSA PUBLIC KEY-----\n")
            }
            Self::Es256(key) | Self::EdDsa(key) => key.public_key_pem(),
        }
    }
}

fn rsa() -> RsaKeyPair {
    let der = STANDARD.decode(RSA.replace(['\n', ' '], "")).unwrap();
    RsaKeyPair::from_der(&der).unwrap()
}
