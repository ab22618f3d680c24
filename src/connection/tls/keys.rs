//! The keys of one direction, and the numbers of its records.
//!
//! What is stored of a direction is one cache line. The key of AES-128, which nearly every client takes, is stored as
//! it is used; the longer keys of TLS 1.3 are derived from their secret each time. Key objects are made anew for each
//! run of records: fetching a stored one of 600 bytes costs as much.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};

/// A cipher, and the hash from which its keys are derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    /// AES-GCM with keys of 128 bits; its hash is SHA-256.
    Aes128Gcm,
    /// AES-GCM with keys of 256 bits; its hash is SHA-384.
    Aes256Gcm,
    /// ChaCha20-Poly1305; its hash is SHA-256.
    ChaCha20Poly1305,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// TLS 1.2, which RFC 5246 defines, with the AEADs of RFC 5288 and RFC 7905.
    Tls12,
    /// TLS 1.3, which RFC 8446 defines.
    Tls13,
}

/// The keys of one direction, and the number of its next record. There are no two of them with the same keys: it can
/// not be copied, and a number is used up by being taken.
pub(super) struct Direction {
    /// TLS 1.3: the traffic secret, and of AES-128 the key and the IV behind it. TLS 1.2: the IV, then the key.
    material: [u8; MATERIAL_BYTES],
    next: u32,
}

/// The number of a record, which makes its nonce. Each is taken once.
pub(super) struct Number(u64);

/// All numbers that the keys allow were taken.
#[derive(Debug)]
pub(super) struct UsedUp;

/// An AEAD key and the IV that belongs to it, for a run of records.
pub(super) struct Aead {
    key: LessSafeKey,
    iv: [u8; IV_BYTES],
}

/// Bytes of the tag behind each record.
pub(super) const TAG_BYTES: usize = 16;

/// Bytes of the number that TLS 1.2 sends in front of a record of AES-GCM.
pub(super) const EXPLICIT_NONCE_BYTES: usize = 8;

pub(super) const IV_BYTES: usize = 12;
const MATERIAL_BYTES: usize = 60;
const KEY_BYTES_MAX: usize = 32;
const SECRET_BYTES_MAX: usize = 48;

impl Cipher {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => KEY_BYTES_MAX,
        }
    }

    fn secret_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => 32,
            Self::Aes256Gcm => SECRET_BYTES_MAX,
        }
    }

    fn hash(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => HKDF_SHA256,
            Self::Aes256Gcm => HKDF_SHA384,
        }
    }

    /// Whether TLS 1.2 sends a part of each nonce.
    pub fn has_explicit_nonce(self, version: Version) -> bool {
        version == Version::Tls12 && self != Self::ChaCha20Poly1305
    }
}

impl Direction {
    /// The keys of TLS 1.3, from a traffic secret. `None` if it does not have the length of the cipher's hash.
    pub fn of_secret(cipher: Cipher, secret: &[u8], next: u32) -> Option<Self> {
        if secret.len() != cipher.secret_bytes() {
            return None;
        }
        let mut direction = Self { material: [0; MATERIAL_BYTES], next };
        direction.material[..secret.len()].copy_from_slice(secret);
        if cipher == Cipher::Aes128Gcm {
            let (mut key, mut iv) = ([0; 16], [0; IV_BYTES]);
            expand(cipher, secret, b"key", &mut key);
            expand(cipher, secret, b"iv", &mut iv);
            direction.material[32..48].copy_from_slice(&key);
            direction.material[48..].copy_from_slice(&iv);
        }
        Some(direction)
    }

    /// The keys of TLS 1.2. `None` if they do not have the lengths of the cipher's.
    pub fn of_key(cipher: Cipher, key: &[u8], iv: &[u8], next: u32) -> Option<Self> {
        if key.len() != cipher.key_bytes() || iv.len() != IV_BYTES {
            return None;
        }
        let mut direction = Self { material: [0; MATERIAL_BYTES], next };
        direction.material[..IV_BYTES].copy_from_slice(iv);
        direction.material[IV_BYTES..IV_BYTES + key.len()].copy_from_slice(key);
        Some(direction)
    }

    /// The key object, for a run of records.
    pub fn aead(&self, cipher: Cipher, version: Version) -> Aead {
        let (mut key, mut iv) = ([0; KEY_BYTES_MAX], [0; IV_BYTES]);
        let key = &mut key[..cipher.key_bytes()];
        let material = &self.material;
        match (version, cipher) {
            (Version::Tls12, _) => {
                iv.copy_from_slice(&material[..IV_BYTES]);
                key.copy_from_slice(&material[IV_BYTES..IV_BYTES + key.len()]);
            }
            (Version::Tls13, Cipher::Aes128Gcm) => {
                key.copy_from_slice(&material[32..48]);
                iv.copy_from_slice(&material[48..]);
            }
            (Version::Tls13, _) => {
                let secret = &material[..cipher.secret_bytes()];
                expand(cipher, secret, b"key", key);
                expand(cipher, secret, b"iv", &mut iv);
            }
        }
        let unbound = UnboundKey::new(cipher.algorithm(), key).expect("the length is the cipher's");
        Aead { key: LessSafeKey::new(unbound), iv }
    }

    /// Whether the key and IV are these.
    pub fn has(&self, cipher: Cipher, key: &[u8], iv: &[u8]) -> bool {
        let (mut own_key, mut own_iv) = ([0; KEY_BYTES_MAX], [0; IV_BYTES]);
        let own_key = &mut own_key[..cipher.key_bytes()];
        let secret = &self.material[..cipher.secret_bytes()];
        expand(cipher, secret, b"key", own_key);
        expand(cipher, secret, b"iv", &mut own_iv);
        own_key == key && own_iv == iv
    }

    /// The number of the next record, without taking it.
    pub fn number(&self) -> u32 {
        self.next
    }

    /// Takes the number of the next record.
    pub fn take(&mut self) -> Result<Number, UsedUp> {
        let number = Number(u64::from(self.next));
        self.next = self.next.checked_add(1).ok_or(UsedUp)?;
        Ok(number)
    }

    /// The keys that follow these after a KeyUpdate: RFC 8446 7.2.
    pub fn update(&mut self, cipher: Cipher) {
        let mut next = [0; SECRET_BYTES_MAX];
        let next = &mut next[..cipher.secret_bytes()];
        expand(cipher, &self.material[..cipher.secret_bytes()], b"traffic upd", next);
        *self = Self::of_secret(cipher, next, 0).expect("the length is the cipher's");
    }

    /// Overwrites the keys.
    pub fn erase(&mut self) {
        self.material = [0; MATERIAL_BYTES];
        std::hint::black_box(&self.material);
    }

    /// Sets the number of the next record, so that a test comes to a limit.
    #[cfg(test)]
    pub fn skip_to(&mut self, next: u32) {
        self.next = next;
    }
}

impl Number {
    /// The number in network byte order.
    pub fn bytes(&self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl Aead {
    /// The nonce of a record: RFC 8446 5.3, and for ChaCha20 in TLS 1.2 RFC 7905. What rustls began as the explicit
    /// nonces of AES-GCM in TLS 1.2 goes on in the same way.
    pub fn nonce(&self, number: Number) -> [u8; IV_BYTES] {
        let mut nonce = self.iv;
        for (byte, of_number) in nonce[IV_BYTES - 8..].iter_mut().zip(number.bytes()) {
            *byte ^= of_number;
        }
        nonce
    }

    /// The nonce of a record that came with its explicit part: RFC 5288 section 3.
    pub fn nonce_of_peer(&self, explicit: &[u8]) -> [u8; IV_BYTES] {
        let mut nonce = self.iv;
        nonce[IV_BYTES - EXPLICIT_NONCE_BYTES..].copy_from_slice(explicit);
        nonce
    }

    /// Encrypts in place. The nonce was never used with this key.
    pub fn seal(&self, nonce: [u8; IV_BYTES], aad: &[u8], text: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
        let tag = tag.expect("a record is far below the limit of the AEAD");
        tag.as_ref().try_into().expect("a tag of these AEADs has 16 bytes")
    }

    /// Decrypts in place. Returns the number of bytes; `None` if they are not what the peer sealed.
    pub fn open(&self, nonce: [u8; IV_BYTES], aad: &[u8], text: &mut [u8]) -> Option<usize> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place(nonce, Aad::from(aad), text).ok().map(|text| text.len())
    }
}

/// HKDF-Expand-Label of RFC 8446 7.1, without a context.
pub(super) fn expand(cipher: Cipher, secret: &[u8], label: &[u8], out: &mut [u8]) {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let bytes = u16::try_from(out.len()).expect("keys are short").to_be_bytes();
    let label_bytes = [u8::try_from(6 + label.len()).expect("labels are short")];
    let info = [&bytes, &label_bytes[..], b"tls13 ", label, &[0]];
    let secret = Prk::new_less_safe(cipher.hash(), secret);
    let expanded = secret.expand(&info, Length(out.len())).and_then(|okm| okm.fill(out));
    expanded.expect("a key is shorter than 255 hashes");
}
