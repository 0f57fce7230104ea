// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a scenario can show, and what of a step may differ.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Symptom {
    /// The kernel reports a WARN, BUG, Oops, lockup, stall or panic.
    KernelBug,
    /// Memory reads other than the same steps leave it on plain memory.
    Content,
    /// A call returns another error number, or another success, than on plain memory.
    Errno,
    /// A step gets a signal that it does not get on plain memory, or a process is killed.
    Signal,
    /// Pages of VRAM are still in use after all processes have ended.
    Leak,
    /// A step does not end.
    Hang,
    /// The device's trace breaks a rule, or an `expect` does not hold.
    Oracle,
    /// The order that the scenario asks for did not come about: nothing was held, say.
    Order,
}

/// What of a step's outcome is compared with plain memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// What is read.
    Content,
    /// The error number.
    Errno,
    /// The signal.
    Signal,
}

impl From<Aspect> for Symptom {
    fn from(aspect: Aspect) -> Self {
        match aspect {
            Aspect::Content => Self::Content,
            Aspect::Errno => Self::Errno,
            Aspect::Signal => Self::Signal,
        }
    }
}

/// A word that a set of names does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownName;

macro_rules! names {
    ($type:ident: $($variant:ident $name:literal,)*) => {
        impl $type {
            /// All of them, as scenarios name them.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }

        impl Display for $type {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text { $($name => Ok(Self::$variant),)* _ => Err(UnknownName) }
            }
        }
    };
}
pub(crate) use names;

names! { Symptom:
    KernelBug "kernel-bug", Content "content", Errno "errno", Signal "signal", Leak "leak", Hang "hang", Oracle "oracle",
    Order "order",
}

names! { Aspect: Content "content", Errno "errno", Signal "signal", }
