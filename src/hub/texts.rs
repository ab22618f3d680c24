//! Short texts that are removed in any order, in one block of memory.
//!
//! A heap block of its own would cost a text of 40 bytes another 40: a pointer with a length, what the allocator keeps
//! beside the block, and what it rounds up. Here it costs what fills its last unit of [`UNIT_BYTES`] bytes, and its
//! owner keeps 4 bytes.

use super::slots::{NONE, is_sparse, slot, some};

/// Texts in runs of units. A removed run is used again for a text of as many units.
#[derive(Debug)]
pub(super) struct Texts {
    units: Vec<[u8; UNIT_BYTES]>,
    /// The number of units for which address space is reserved.
    units_min: usize,
    /// By number of units, the first of the free runs. Each of them begins with the place of the next one.
    free: Vec<u32>,
    /// Units of texts.
    used: usize,
}

/// Bytes of a unit.
pub(super) const UNIT_BYTES: usize = 16;

/// Longer texts have a multiple of this number of units, so that few lengths differ.
const UNITS_EXACT_MAX: usize = 16;

impl Texts {
    /// Reserves address space for a number of units.
    pub(super) fn with_capacity(units: usize) -> Self {
        Self { units: Vec::with_capacity(units), units_min: units, free: Vec::new(), used: 0 }
    }

    /// Adds a text, which has two parts, and returns its place.
    pub(super) fn insert(&mut self, parts: [&[u8]; 2]) -> u32 {
        let len = parts.iter().map(|part| part.len()).sum();
        let units = units_of(len);
        self.used += units;
        let at = match self.free.get(units).copied().and_then(some) {
            Some(at) => {
                let [a, b, c, d, ..] = self.units[at as usize];
                self.free[units] = u32::from_le_bytes([a, b, c, d]);
                at
            }
            None => {
                let at = slot(self.units.len());
                self.units.resize(self.units.len() + units, [0; UNIT_BYTES]);
                at
            }
        };
        let mut out = &mut self.units[at as usize..].as_flattened_mut()[..len];
        for part in parts {
            out[..part.len()].copy_from_slice(part);
            out = &mut out[part.len()..];
        }
        at
    }

    /// The text of this length at a place.
    pub(super) fn get(&self, at: u32, len: usize) -> &[u8] {
        &self.units[at as usize..].as_flattened()[..len]
    }

    /// Removes the text of this length at a place. With the last one, all memory is released.
    pub(super) fn remove(&mut self, at: u32, len: usize) {
        let units = units_of(len);
        if units == 0 {
            return;
        }
        self.used -= units;
        if self.used == 0 {
            if is_sparse(0, self.units.len()) {
                self.units = Vec::with_capacity(self.units_min);
            }
            self.units.clear();
            self.free.clear();
            return;
        }
        if self.free.len() <= units {
            self.free.resize(units + 1, NONE);
        }
        let next = std::mem::replace(&mut self.free[units], at);
        self.units[at as usize][..4].copy_from_slice(&next.to_le_bytes());
    }

    /// Bytes of all texts, and of the free runs between them.
    pub(super) fn bytes(&self) -> usize {
        self.units.len() * UNIT_BYTES
    }
}

fn units_of(len: usize) -> usize {
    match len.div_ceil(UNIT_BYTES) {
        units @ ..=UNITS_EXACT_MAX => units,
        units => units.next_multiple_of(UNITS_EXACT_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Random;
    use super::*;

    #[test]
    fn texts_of_all_lengths_are_found_until_they_are_removed() {
        let mut random = Random(7);
        let mut texts = Texts::with_capacity(4);
        let mut kept: Vec<(u32, Vec<u8>)> = Vec::new();
        for round in 0..20_000_u32 {
            let grows = round % 4000 < 2000;
            if kept.is_empty() || random.below(4) < if grows { 3 } else { 1 } {
                let len = random.below(if round % 5 == 0 { 5000 } else { 60 }) as usize;
                let text: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
                let (one, two) = text.split_at(random.below(len as u64 + 1) as usize);
                kept.push((texts.insert([one, two]), text));
            } else {
                let (at, text) = kept.swap_remove(random.below(kept.len() as u64) as usize);
                texts.remove(at, text.len());
            }
            if round % 100 == 0 {
                for (at, text) in &kept {
                    assert_eq!(texts.get(*at, text.len()), text);
                }
            }
        }
        for (at, text) in kept.drain(..) {
            assert_eq!(texts.get(at, text.len()), text);
            texts.remove(at, text.len());
        }
        assert_eq!((texts.used, texts.bytes()), (0, 0));
    }

    #[test]
    fn a_removed_text_makes_room_for_one_of_its_length() {
        let mut texts = Texts::with_capacity(0);
        let kept = texts.insert([b"kept", b""]);
        let places: Vec<u32> = (0..3).map(|_| texts.insert([&[1; 20], &[2; 20]])).collect();
        let bytes = texts.bytes();
        assert_eq!(bytes, UNIT_BYTES * (1 + 3 * 3));
        for at in &places {
            texts.remove(*at, 40);
        }
        let again: Vec<u32> = (0..3).map(|_| texts.insert([&[3; 33], b""])).collect();
        assert_eq!((texts.bytes(), again.len()), (bytes, 3));
        assert_eq!(texts.get(kept, 4), b"kept");
        assert_eq!(texts.insert([b"", b""]), slot(bytes / UNIT_BYTES), "nothing takes no unit");
    }
}
