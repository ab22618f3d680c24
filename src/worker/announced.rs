//! Which clients the backend was notified of.

/// The clients of this worker whose connection the backend was notified of, a bit for each slot.
#[derive(Debug, Default)]
pub(super) struct Announced(Vec<u64>);

impl Announced {
    /// Notes whether a client is announced. Returns whether it was.
    pub(super) fn set(&mut self, index: u32, is_announced: bool) -> bool {
        let (word, bit) = ((index / u64::BITS) as usize, 1 << (index % u64::BITS));
        if word >= self.0.len() {
            if !is_announced {
                return false;
            }
            self.0.resize(word + 1, 0);
        }
        let before = self.0[word] & bit != 0;
        if is_announced {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_announced_once_and_until_it_leaves() {
        let mut announced = Announced::default();
        for index in [0, 63, 64, 1000] {
            assert!(!announced.set(index, false));
            assert!(!announced.set(index, true) && announced.set(index, true));
        }
        assert!(announced.set(63, false) && !announced.set(63, false) && announced.set(64, true));
    }
}
