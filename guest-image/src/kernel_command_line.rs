// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Splits the kernel command line into words, and picks out those meant for a module.
//!
//! The kernel hands `MODULE.NAME=VALUE` only to built-in code. For a module that is loaded later it is up to whoever
//! loads it, as `modprobe` does and PID 1 does here.

/// The words of a kernel command line. White space separates them, but not inside double quotes; the quotes stay, since
/// the module loader takes them off itself.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    })
    .filter(|word| !word.is_empty())
}

/// The parameters of one module, in their order, as `finit_module` takes them: `NAME=VALUE` separated by spaces.
/// As in the kernel, `-` and `_` are the same in a module's name.
pub fn module_parameters(line: &str, module: &str) -> String {
    let same_name = |word: &str| word.replace('-', "_") == module.replace('-', "_");
    let own: Vec<&str> = words(line)
        .filter_map(|word| word.split_once('.'))
        .filter(|(name, parameter)| same_name(name) && !parameter.is_empty())
        .map(|(_, parameter)| parameter)
        .collect();
    own.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_the_modules_own_words_in_order() {
        let line = "console=ttyS0 ersatz.memory=coherent quiet other.memory=x ersatz.region=bar\n";
        assert_eq!(module_parameters(line, "ersatz"), "memory=coherent region=bar");
        assert_eq!(module_parameters(line, "absent"), "");
    }

    #[test]
    fn a_quoted_value_keeps_its_blanks_and_its_quotes() {
        let line = "ersatz.name=\"two words\" ersatz.flag";
        assert_eq!(module_parameters(line, "ersatz"), "name=\"two words\" flag");
    }

    #[test]
    fn dashes_and_underscores_name_the_same_module() {
        assert_eq!(module_parameters("kvm-amd.nested=1 kvm_amd.npt=0", "kvm_amd"), "nested=1 npt=0");
    }

    #[test]
    fn ignores_what_only_looks_like_a_parameter() {
        assert_eq!(module_parameters("ersatz ersatz. ersatz=1 init=/ersatz.memory", "ersatz"), "");
    }
}
