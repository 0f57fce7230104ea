// SPDX-License-Identifier: GPL-2.0
/* Compiled once more: Kbuild has no object in two modules. */
#include "../../../src/zone_device/shim.c"
