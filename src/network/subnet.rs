//! Address ranges.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A range of addresses such as `10.1.0.0/16`; the base has no bits beyond the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    base: IpAddr,
    prefix: u8,
}

/// Why text is not a subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error("`{0}` is not an address range such as 10.1.0.0/16 or fd00:1::/64")]
    Form(String),
    #[error("`{0}` leaves no room for a gateway and two pods; use a prefix of at most /29 or /125")]
    Small(String),
    #[error("`{given}` has bits beyond its prefix; write {meant}")]
    Loose { given: String, meant: Subnet },
}

/// How many addresses of a range are ever given out; more would only slow down finding a free one.
const POOL_LIMIT: u128 = 1 << 20;

impl Subnet {
    /// The range of this prefix that an address is in.
    pub fn around(address: IpAddr, prefix: u8) -> Subnet {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let given = Subnet {
            base: address,
            prefix: prefix.min(width),
        };
        let base = number(address) & given.mask();
        Subnet {
            base: match address {
                IpAddr::V4(_) => Ipv4Addr::from(base as u32).into(),
                IpAddr::V6(_) => Ipv6Addr::from(base).into(),
            },
            ..given
        }
    }

    pub fn base(self) -> IpAddr {
        self.base
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn is_ipv4(self) -> bool {
        self.base.is_ipv4()
    }

    pub fn contains(self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                number(self.base) == number(address) & self.mask()
            }
            _ => false,
        }
    }

    pub fn overlaps(self, other: Subnet) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The first address after the base: the usual gateway.
    pub fn first(self) -> IpAddr {
        self.at(1)
    }

    /// The last address of the range: for IPv4 the broadcast address.
    pub fn last(self) -> IpAddr {
        self.at(!self.mask() & self.all_ones())
    }

    /// How many addresses a pool may draw from, base and (for IPv4) broadcast left out.
    pub fn pool_size(self) -> u128 {
        let hosts = (!self.mask() & self.all_ones()).saturating_sub(u128::from(self.is_ipv4()));
        hosts.min(POOL_LIMIT)
    }

    /// The `index`th address of the pool, counted from 0 and going round.
    pub fn pool_address(self, index: u128) -> IpAddr {
        self.at(1 + index.checked_rem(self.pool_size()).unwrap_or(0))
    }

    /// The inverse of [`Self::pool_address`].
    pub fn pool_index(self, address: IpAddr) -> Option<u128> {
        let index = number(address).checked_sub(number(self.base))?.checked_sub(1)?;
        (self.contains(address) && index < self.pool_size()).then_some(index)
    }

    fn at(self, offset: u128) -> IpAddr {
        let number = number(self.base) | offset;
        match self.base {
            IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from(number).into(),
        }
    }

    fn width(self) -> u8 {
        if self.is_ipv4() { 32 } else { 128 }
    }

    fn all_ones(self) -> u128 {
        if self.is_ipv4() {
            u128::from(u32::MAX)
        } else {
            u128::MAX
        }
    }

    fn mask(self) -> u128 {
        let free = u32::from(self.width() - self.prefix);
        self.all_ones() & u128::MAX.checked_shl(free).unwrap_or(0)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// Splits `address/prefix`, host bits allowed, as CNI results write an interface's address.
pub fn parse_with_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    // Digits only: `parse` alone would take a sign.
    let prefix: u8 = prefix
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| prefix.parse().ok())??;
    (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, prefix))
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (base, prefix) = parse_with_prefix(text).ok_or_else(|| SubnetError::Form(text.to_owned()))?;
        let given = Subnet { base, prefix };
        let meant = Subnet::around(base, prefix);
        if given.width() - prefix < 3 {
            return Err(SubnetError::Small(text.to_owned()));
        }
        if given != meant {
            return Err(SubnetError::Loose {
                given: text.to_owned(),
                meant,
            });
        }
        Ok(given)
    }
}

impl<'de> serde::Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_know_their_edges() {
        let four = subnet("10.1.2.0/24");
        assert_eq!(four.first().to_string(), "10.1.2.1");
        assert_eq!(four.last().to_string(), "10.1.2.255");
        assert_eq!(four.pool_size(), 254);
        assert_eq!(four.pool_address(253).to_string(), "10.1.2.254");
        assert_eq!(four.pool_address(254).to_string(), "10.1.2.1");
        let six = subnet("fd00:1::/64");
        assert_eq!(six.first().to_string(), "fd00:1::1");
        assert_eq!(six.pool_size(), POOL_LIMIT);
        assert!(subnet("0.0.0.0/0").contains("203.0.113.9".parse().unwrap()));
        assert!(!subnet("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(subnet("10.0.0.0/8").overlaps(four) && four.overlaps(subnet("10.0.0.0/8")));
        assert!(!four.overlaps(subnet("10.1.3.0/24")) && !four.overlaps(six));
    }

    #[test]
    fn bad_ranges_are_told() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0/8",
            "fd00::/129",
            "x/8",
        ] {
            assert!(
                matches!(text.parse::<Subnet>(), Err(SubnetError::Form(_))),
                "{text}"
            );
        }
        assert!(matches!(
            "10.0.0.0/30".parse::<Subnet>(),
            Err(SubnetError::Small(_))
        ));
        let loose = "10.1.2.3/24".parse::<Subnet>().unwrap_err();
        assert_eq!(
            loose.to_string(),
            "`10.1.2.3/24` has bits beyond its prefix; write 10.1.2.0/24"
        );
    }

    proptest! {
        #[test]
        fn the_pool_stays_inside_and_counts_both_ways(base: u128, four: bool, prefix in 0u8..=125, index: u128) {
            let text = if four {
                format!("{}/{}", Ipv4Addr::from(base as u32), prefix.min(29))
            } else {
                format!("{}/{}", Ipv6Addr::from(base), prefix)
            };
            let subnet = match text.parse::<Subnet>() {
                Ok(subnet) => subnet,
                Err(SubnetError::Loose { meant, .. }) => meant,
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            let address = subnet.pool_address(index);
            prop_assert!(subnet.contains(address));
            prop_assert_ne!(address, subnet.base());
            prop_assert!(!four || address != subnet.last());
            prop_assert_eq!(subnet.pool_index(address), Some(index % subnet.pool_size()));
        }
    }
}
