//! The partition of a key, as Java's producer computes it.
//!
//! The producer leaves the choice to librdkafka's `murmur2_random`, which is the same function. Ours
//! is for those who must know the partition without asking: checks, and tests that compare the two.

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// The 32-bit murmur2 of `org.apache.kafka.common.utils.Utils`, as an unsigned number.
#[must_use]
pub fn murmur2(key: &[u8]) -> u32 {
    // Java's length is an `int`, and no Kafka key comes near 2 GB.
    let mut hash = SEED ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

/// The partition of a key in a topic of `partitions`; `None` without a key, where any will do, and
/// for a topic without partitions.
#[must_use]
pub fn partition(key: Option<&[u8]>, partitions: i32) -> Option<i32> {
    let partitions = u32::try_from(partitions).ok().filter(|count| *count > 0)?;
    // Java clears the sign bit; an absolute value would be another partition.
    let positive = murmur2(key?) & 0x7fff_ffff;
    i32::try_from(positive % partitions).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hash and partition of six, printed by kafka-clients 4.3.1.
    const JAVA: [(&str, i32, i32); 16] = [
        ("", 275646681, 3),
        ("0", 971027396, 2),
        ("1", -1993445489, 3),
        ("12", 126087238, 4),
        ("123", -267702483, 5),
        ("1234", -1614185708, 0),
        ("12345", -1188365604, 2),
        ("21", -973932308, 0),
        ("foobar", -790332482, 0),
        ("a-little-bit-long-string", -985981536, 2),
        ("a-little-bit-longer-string", -1486304829, 5),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971, 5),
        ("order-1", 1221710326, 4),
        ("018f6b1e-7c3a-7d21-9b1f-2f0a6c1d4e5f", -1822932259, 1),
        ("größe", 588164084, 2),
        ("日本", -700811021, 3),
    ];

    #[test]
    fn hash_and_partition_are_those_of_java() {
        for (key, hash, of_six) in JAVA {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
            assert_eq!(partition(Some(key.as_bytes()), 6), Some(of_six), "{key}");
        }
        // Bytes above 127 are negative in Java.
        assert_eq!(murmur2(&[0x00, 0xff, 0x80, 0x7f, 0x90]).cast_signed(), -679_972_134);
    }

    #[test]
    fn without_a_key_or_a_partition_there_is_no_choice_to_know() {
        assert_eq!(partition(None, 6), None);
        assert_eq!(partition(Some(b"k"), 0), None);
        assert_eq!(partition(Some(b"k"), -1), None);
        assert_eq!(partition(Some(b"k"), 1), Some(0));
    }
}
