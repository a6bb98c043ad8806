//! The cryptography of tokens, on ring, which the tree has for TLS: `jsonwebtoken` takes any provider. It verifies; goms
//! signs no tokens.
//!
//! Algorithms of RFC 7518 section 3.1 and RFC 8037. RSA keys have 2048 bits at least (RFC 7518 section 3.3).

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::hmac;
use ring::signature::{
    self as ring_signature, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use signature::Verifier;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(), // for making key sets of private keys, which is not done here
};

/// Makes this the provider of `jsonwebtoken`. A program that goms is a library of may have set another, which does as well.
pub(super) fn install() {
    if PROVIDER.install_default().is_err() {
        log::trace!("a provider of cryptography for tokens is set already");
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    // never a key of one kind with an algorithm of another: a public key is no secret
    if algorithm.family() != key.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() }))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let verified = match self.algorithm {
            Algorithm::HS256 => self.shared(hmac::HMAC_SHA256, message, signature),
            Algorithm::HS384 => self.shared(hmac::HMAC_SHA384, message, signature),
            Algorithm::HS512 => self.shared(hmac::HMAC_SHA512, message, signature),
            Algorithm::RS256 => self.rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA256, message, signature),
            Algorithm::RS384 => self.rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA384, message, signature),
            Algorithm::RS512 => self.rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA512, message, signature),
            Algorithm::PS256 => self.rsa(&ring_signature::RSA_PSS_2048_8192_SHA256, message, signature),
            Algorithm::PS384 => self.rsa(&ring_signature::RSA_PSS_2048_8192_SHA384, message, signature),
            Algorithm::PS512 => self.rsa(&ring_signature::RSA_PSS_2048_8192_SHA512, message, signature),
            Algorithm::ES256 => self.public(&ring_signature::ECDSA_P256_SHA256_FIXED, message, signature),
            Algorithm::ES384 => self.public(&ring_signature::ECDSA_P384_SHA384_FIXED, message, signature),
            Algorithm::EdDSA => self.public(&ring_signature::ED25519, message, signature),
            _ => Err(signature::Error::new()),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl RingVerifier {
    fn bytes(&self) -> std::result::Result<&[u8], signature::Error> {
        self.key.try_get_as_bytes().map_err(|_| signature::Error::new())
    }

    fn shared(
        &self,
        algorithm: hmac::Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> std::result::Result<(), signature::Error> {
        let key = hmac::Key::new(algorithm, self.bytes()?);
        hmac::verify(&key, message, signature).map_err(|_| signature::Error::new())
    }

    fn public(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> std::result::Result<(), signature::Error> {
        let key = UnparsedPublicKey::new(algorithm, self.bytes()?);
        key.verify(message, signature).map_err(|_| signature::Error::new())
    }

    fn rsa(
        &self,
        parameters: &'static RsaParameters,
        message: &[u8],
        signature: &[u8],
    ) -> std::result::Result<(), signature::Error> {
        match self.key.kind() {
            DecodingKeyKind::SecretOrDer(_) => self.public(parameters, message, signature),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                // ring refuses leading zeros, which some issuers write
                let trimmed = |number: &[u8]| {
                    let zeros = number.iter().take_while(|byte| **byte == 0).count();
                    number[zeros..].to_vec()
                };
                let key = RsaPublicKeyComponents { n: trimmed(n), e: trimmed(e) };
                key.verify(parameters, message, signature).map_err(|_| signature::Error::new())
            }
        }
    }
}
