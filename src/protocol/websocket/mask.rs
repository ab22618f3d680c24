//! Masking, RFC 6455 5.3: each payload byte XOR a byte of a four-byte key. The same loop masks and unmasks.
//!
//! Short payloads are processed a few words at a time. Longer ones go through a plain loop that the compiler
//! vectorizes, built a second time for processors with AVX2. `benches/codec.rs` requires half the speed of memcpy.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "calls a function built for AVX2 after asking the processor")
)]

/// XORs `payload` with `mask` in place. `phase` is the number of the frame's payload bytes before these.
#[inline]
pub fn unmask(payload: &mut [u8], mask: [u8; 4], phase: usize) {
    let [a, b, c, d] = mask;
    let mask = match phase & 3 {
        0 => mask,
        1 => [b, c, d, a],
        2 => [c, d, a, b],
        _ => [d, a, b, c],
    };
    if payload.len() < VECTOR_BYTES_MIN {
        return unmask_short(payload, mask);
    }
    unmask_long(payload, mask);
}

fn unmask_long(payload: &mut [u8], mask: [u8; 4]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the callee needs AVX2, which was detected above. It has no other condition.
        return unsafe { unmask_avx2(payload, mask) };
    }
    unmask_blocks(payload, mask);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn unmask_avx2(payload: &mut [u8], mask: [u8; 4]) {
    unmask_blocks(payload, mask);
}

/// The loop for every instruction set: it is inlined, so it is compiled for the instruction set of its caller.
#[inline(always)]
fn unmask_blocks(payload: &mut [u8], mask: [u8; 4]) {
    let mut key = [0; BLOCK_BYTES];
    for word in key.as_chunks_mut::<4>().0 {
        *word = mask;
    }
    let (blocks, tail) = payload.as_chunks_mut::<BLOCK_BYTES>();
    for block in blocks {
        for (byte, key) in block.iter_mut().zip(&key) {
            *byte ^= key;
        }
    }
    unmask_short(tail, mask);
}

#[inline(always)]
fn unmask_short(payload: &mut [u8], mask: [u8; 4]) {
    let key = u32::from_ne_bytes(mask);
    let key = u64::from(key) << 32 | u64::from(key);
    // Four words at a time fit the vectors that every processor has.
    let (blocks, rest) = payload.as_chunks_mut::<32>();
    for block in blocks {
        for word in block.as_chunks_mut::<8>().0 {
            *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
        }
    }
    let (words, tail) = rest.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    let (word, tail) = match tail.split_first_chunk_mut::<4>() {
        Some((word, tail)) => (Some(word), tail),
        None => (None, tail),
    };
    if let Some(word) = word {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// Below this length, detecting AVX2 costs more than its vectors save.
const VECTOR_BYTES_MIN: usize = 128;

/// Bytes of one iteration: four AVX2 registers.
const BLOCK_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition_at_each_length_alignment_and_phase() {
        let mask = [0x11, 0x22, 0x44, 0x88];
        let lengths = (0..300).chain([1000, 1023, 1024, 4096, 4097, 65_536]);
        for len in lengths {
            for start in 0..9 {
                for phase in 0..5 {
                    let mut bytes: Vec<u8> = (0..start + len).map(|index| index as u8).collect();
                    let mut expected = bytes.clone();
                    for (index, byte) in expected[start..].iter_mut().enumerate() {
                        *byte ^= mask[(index + phase) % 4];
                    }
                    unmask(&mut bytes[start..], mask, phase);
                    assert!(bytes == expected, "length {len}, start {start}, phase {phase}");
                }
            }
        }
    }

    #[test]
    fn the_portable_loop_agrees_with_the_one_in_use() {
        for len in [128, 129, 255, 256, 1000, 65_535] {
            let mut portable: Vec<u8> = (0..len).map(|index| (index * 7) as u8).collect();
            let mut in_use = portable.clone();
            unmask_blocks(&mut portable, [1, 2, 3, 4]);
            unmask(&mut in_use, [1, 2, 3, 4], 0);
            assert!(portable == in_use, "length {len}");
        }
    }
}
