//! Undoes the masking of client payloads (RFC 6455 section 5.3), eight bytes at a time.

/// Exclusive-ors `bytes` with `key`. `offset` is how many bytes of the same payload came before, since a payload that
/// is read in pieces goes on in the middle of the key.
///
/// Safe chunks of eight suffice: the compiler makes vector instructions of this loop, and reading unaligned costs
/// nothing on the machines we run on, so the aligned-pointer variant would buy `unsafe` and nothing else.
pub fn unmask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let key = u32::from_le_bytes(key).rotate_right(8 * (offset % 4) as u32).to_le_bytes();
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_6455_section_5_7() {
        let mut bytes = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut bytes, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&bytes, b"Hello");
    }

    proptest! {
        /// Any length, any start in memory, any cut: the same as byte by byte.
        #[test]
        fn it_equals_the_definition(
            original in proptest::collection::vec(any::<u8>(), 0..200),
            key: [u8; 4],
            offset in 0usize..9,
            start in 0usize..9,
            cut in 0usize..200,
        ) {
            let start = start.min(original.len());
            let mut expected = original.clone();
            for (index, byte) in expected[start..].iter_mut().enumerate() {
                *byte ^= key[(offset + index) % 4];
            }
            let mut bytes = original.clone();
            let (first, second) = {
                let all = &mut bytes[start..];
                let cut = cut.min(all.len());
                all.split_at_mut(cut)
            };
            unmask(first, key, offset);
            unmask(second, key, offset + first.len());
            prop_assert_eq!(bytes, expected);
        }
    }
}
