//! The digits that nlohmann-json writes of a double, by the algorithm that it uses: Grisu2 of Florian Loitsch ("Printing
//! Floating-Point Numbers Quickly and Accurately with Integers", 2010). They always read back the same, but one number of two
//! thousand has a digit more than it needs, and the path of a derivation depends on it.

/// A number `significand * 2^exponent`.
#[derive(Clone, Copy)]
struct Binary {
    significand: u64,
    exponent: i32,
}

impl Binary {
    /// With the highest bit set.
    fn normal(self) -> Binary {
        let zeros = self.significand.leading_zeros();
        Binary { significand: self.significand << zeros, exponent: self.exponent - zeros as i32 }
    }

    /// Rounded to 64 bits.
    fn times(self, other: Binary) -> Binary {
        let product = u128::from(self.significand) * u128::from(other.significand) + (1 << 63);
        Binary { significand: (product >> 64) as u64, exponent: self.exponent + other.exponent + 64 }
    }
}

/// The digits of a finite number above 0 and the power of ten of the last of them.
pub(super) fn digits(value: f64) -> (Vec<u8>, i32) {
    let (fraction, exponent) = (value.to_bits() & ((1 << 52) - 1), ((value.to_bits() >> 52) & 0x7ff) as i32);
    let number = match exponent {
        0 => Binary { significand: fraction, exponent: 1 - 1075 },
        _ => Binary { significand: fraction | (1 << 52), exponent: exponent - 1075 },
    };
    // Half-way to the neighbours; at a power of two the one below is nearer.
    let above = Binary { significand: 2 * number.significand + 1, exponent: number.exponent - 1 }.normal();
    let below = if fraction == 0 && exponent > 1 {
        Binary { significand: 4 * number.significand - 1, exponent: number.exponent - 2 }
    } else {
        Binary { significand: 2 * number.significand - 1, exponent: number.exponent - 1 }
    };
    let below =
        Binary { significand: below.significand << (below.exponent - above.exponent), exponent: above.exponent };

    let (power, decimal) = power_for(above.exponent);
    let (scaled, low, high) = (number.normal().times(power), below.times(power), above.times(power));
    // The products are wrong by one at most; only what is surely between the neighbours is taken.
    let (digits, last) = generate(low.significand + 1, scaled.significand, high.significand - 1, high.exponent);
    (digits, last - decimal)
}

/// The power of ten that brings a number of this binary exponent into reach, with its decimal exponent.
fn power_for(exponent: i32) -> (Binary, i32) {
    let distance = -60 - exponent - 1;
    let k = distance * 78913 / (1 << 18) + i32::from(distance > 0);
    let index = (300 + k + 7) / 8;
    let (significand, exponent) = POWERS[index as usize];
    (Binary { significand, exponent: i32::from(exponent) }, -300 + 8 * index)
}

fn generate(low: u64, number: u64, high: u64, exponent: i32) -> (Vec<u8>, i32) {
    let (mut delta, mut distance, shift) = (high - low, high - number, -exponent);
    let one = 1u64 << shift;
    let (mut whole, mut rest) = (high >> shift, high & (one - 1));
    let mut digits = Vec::new();
    let mut count = whole.checked_ilog10().map_or(1, |log| log as i32 + 1);
    let mut ten = 10u64.pow(count as u32 - 1);
    while count > 0 {
        digits.push((whole / ten) as u8);
        whole %= ten;
        count -= 1;
        let left = (whole << shift) + rest;
        if left <= delta {
            round(&mut digits, distance, delta, left, ten << shift);
            return (digits, count);
        }
        ten /= 10;
    }
    loop {
        rest *= 10;
        digits.push((rest >> shift) as u8);
        rest &= one - 1;
        count -= 1;
        delta *= 10;
        distance *= 10;
        if rest <= delta {
            round(&mut digits, distance, delta, rest, one);
            return (digits, count);
        }
    }
}

/// Brings the last digit nearer to the number.
fn round(digits: &mut [u8], distance: u64, delta: u64, mut rest: u64, ten: u64) {
    let Some(last) = digits.last_mut() else { return };
    while rest < distance && delta - rest >= ten && (rest + ten < distance || distance - rest > rest + ten - distance) {
        *last -= 1;
        rest += ten;
    }
}

/// 10^-300, 10^-292, … 10^324, rounded to 64 bits.
#[rustfmt::skip]
const POWERS: [(u64, i16); 79] = [
    (0xab70fe17c79ac6ca, -1060), (0xff77b1fcbebcdc4f, -1034), (0xbe5691ef416bd60c, -1007), (0x8dd01fad907ffc3c, -980),
    (0xd3515c2831559a83, -954), (0x9d71ac8fada6c9b5, -927), (0xea9c227723ee8bcb, -901), (0xaecc49914078536d, -874),
    (0x823c12795db6ce57, -847), (0xc21094364dfb5637, -821), (0x9096ea6f3848984f, -794), (0xd77485cb25823ac7, -768),
    (0xa086cfcd97bf97f4, -741), (0xef340a98172aace5, -715), (0xb23867fb2a35b28e, -688), (0x84c8d4dfd2c63f3b, -661),
    (0xc5dd44271ad3cdba, -635), (0x936b9fcebb25c996, -608), (0xdbac6c247d62a584, -582), (0xa3ab66580d5fdaf6, -555),
    (0xf3e2f893dec3f126, -529), (0xb5b5ada8aaff80b8, -502), (0x87625f056c7c4a8b, -475), (0xc9bcff6034c13053, -449),
    (0x964e858c91ba2655, -422), (0xdff9772470297ebd, -396), (0xa6dfbd9fb8e5b88f, -369), (0xf8a95fcf88747d94, -343),
    (0xb94470938fa89bcf, -316), (0x8a08f0f8bf0f156b, -289), (0xcdb02555653131b6, -263), (0x993fe2c6d07b7fac, -236),
    (0xe45c10c42a2b3b06, -210), (0xaa242499697392d3, -183), (0xfd87b5f28300ca0e, -157), (0xbce5086492111aeb, -130),
    (0x8cbccc096f5088cc, -103), (0xd1b71758e219652c, -77), (0x9c40000000000000, -50), (0xe8d4a51000000000, -24),
    (0xad78ebc5ac620000, 3), (0x813f3978f8940984, 30), (0xc097ce7bc90715b3, 56), (0x8f7e32ce7bea5c70, 83),
    (0xd5d238a4abe98068, 109), (0x9f4f2726179a2245, 136), (0xed63a231d4c4fb27, 162), (0xb0de65388cc8ada8, 189),
    (0x83c7088e1aab65db, 216), (0xc45d1df942711d9a, 242), (0x924d692ca61be758, 269), (0xda01ee641a708dea, 295),
    (0xa26da3999aef774a, 322), (0xf209787bb47d6b85, 348), (0xb454e4a179dd1877, 375), (0x865b86925b9bc5c2, 402),
    (0xc83553c5c8965d3d, 428), (0x952ab45cfa97a0b3, 455), (0xde469fbd99a05fe3, 481), (0xa59bc234db398c25, 508),
    (0xf6c69a72a3989f5c, 534), (0xb7dcbf5354e9bece, 561), (0x88fcf317f22241e2, 588), (0xcc20ce9bd35c78a5, 614),
    (0x98165af37b2153df, 641), (0xe2a0b5dc971f303a, 667), (0xa8d9d1535ce3b396, 694), (0xfb9b7cd9a4a7443c, 720),
    (0xbb764c4ca7a44410, 747), (0x8bab8eefb6409c1a, 774), (0xd01fef10a657842c, 800), (0x9b10a4e5e9913129, 827),
    (0xe7109bfba19c0c9d, 853), (0xac2820d9623bf429, 880), (0x80444b5e7aa7cf85, 907), (0xbf21e44003acdd2d, 933),
    (0x8e679c2f5e44ff8f, 960), (0xd433179d9c8cb841, 986), (0x9e19db92b4e31ba9, 1013),
];
