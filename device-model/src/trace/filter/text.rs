// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The values of a filter as text: in rules files and on the control socket they stand as they are typed at the tool.

/// A list of values that have names.
macro_rules! names {
    ($module:ident, $Type:ty, $parse:expr) => {
        pub(super) mod $module {
            use serde::de::Error;
            use serde::{Deserialize, Deserializer, Serializer};

            pub(crate) fn serialize<S: Serializer>(values: &[$Type], serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(values.iter().map(|value| value.name()))
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<$Type>, D::Error> {
                let names = Vec::<String>::deserialize(deserializer)?;
                names.iter().map(|name| $parse(name).map_err(D::Error::custom)).collect()
            }
        }
    };
}

names!(kinds, crate::trace::kind::Kind, <crate::trace::kind::Kind as std::str::FromStr>::from_str);
names!(causes, ersatz_abi::command::Cause, crate::trace::filter::cause);

/// A range that may be absent.
macro_rules! range {
    ($module:ident, $parse:ident, $write:ident) => {
        pub(super) mod $module {
            use serde::de::Error;
            use serde::{Deserialize, Deserializer, Serializer};

            use crate::trace::range::Range;

            pub(crate) fn serialize<S: Serializer>(range: &Option<Range>, serializer: S) -> Result<S::Ok, S::Error> {
                match range {
                    Some(range) => serializer.serialize_some(&range.$write()),
                    None => serializer.serialize_none(),
                }
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Range>, D::Error> {
                let text = Option::<String>::deserialize(deserializer)?;
                text.map(|text| Range::$parse(&text).map_err(D::Error::custom)).transpose()
            }
        }
    };
}

range!(addresses, of_addresses, to_addresses);
range!(times, of_times, to_times);
