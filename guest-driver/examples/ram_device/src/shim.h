/* SPDX-License-Identifier: GPL-2.0 */
/* What src/zone_device cannot reach by itself is all that this module needs. */
#include "../../../src/zone_device/shim.h"
