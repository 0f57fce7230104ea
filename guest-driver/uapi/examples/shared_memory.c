/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A vector from malloc(): the CPU fills it, the device computes on it, the CPU reads the result. No buffer is registered, none is copied by
 * hand.
 *
 *	gcc -O2 -I guest-driver/uapi -o shared_memory guest-driver/uapi/examples/shared_memory.c
 *	ersatz run -- ./shared_memory
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "ersatz.h"

#define PAGE 4096
#define BYTES (1 << 20)
#define FLOATS (BYTES / sizeof(float))

/* How many pages of a range are on the device. */
static size_t pages_on_device(int device, void *memory)
{
	unsigned char states[BYTES / PAGE];
	struct ersatz_residency residency = {
		.address = (uintptr_t)memory, .length = BYTES, .states = (uintptr_t)states,
	};
	size_t count = 0;

	if (ioctl(device, ERSATZ_IOC_RESIDENCY, &residency))
		err(1, "ERSATZ_IOC_RESIDENCY");
	for (size_t i = 0; i < BYTES / PAGE; i++)
		count += states[i] == ERSATZ_PAGE_DEVICE;
	return count;
}

int main(void)
{
	float *x = aligned_alloc(PAGE, BYTES), *y = aligned_alloc(PAGE, BYTES), factor = 3;
	uint32_t factor_bits;
	int device = open("/dev/ersatz0", O_RDWR);

	if (device < 0)
		err(1, "/dev/ersatz0");
	if (!x || !y)
		err(1, "aligned_alloc");
	for (size_t i = 0; i < FLOATS; i++) {
		x[i] = i % 1000;
		y[i] = 1;
	}

	/* The process's address space becomes the device's. */
	struct ersatz_bind bind = { 0 };
	if (ioctl(device, ERSATZ_IOC_BIND, &bind))
		err(1, "ERSATZ_IOC_BIND");

	/* y is worked on often: it moves to the device at the first fault. x is read where it is. */
	struct ersatz_advise advise = {
		.address = (uintptr_t)y, .length = BYTES, .advice = ERSATZ_ADVICE_PREFER_DEVICE,
	};
	if (ioctl(device, ERSATZ_IOC_ADVISE, &advise))
		err(1, "ERSATZ_IOC_ADVISE");

	/* y = factor * x + y */
	memcpy(&factor_bits, &factor, sizeof(factor));
	struct ersatz_launch launch = {
		.kernel = ERSATZ_KERNEL_SAXPY, .first = (uintptr_t)x, .value = factor_bits, .second = (uintptr_t)y, .count = BYTES,
	};
	if (ioctl(device, ERSATZ_IOC_LAUNCH, &launch))
		err(1, "ERSATZ_IOC_LAUNCH: stopped at %#llx", (unsigned long long)launch.fault_address);

	printf("on the device: %zu pages of x, %zu of y\n", pages_on_device(device, x), pages_on_device(device, y));
	for (size_t i = 0; i < FLOATS; i++)
		if (y[i] != factor * x[i] + 1)
			errx(1, "y[%zu] is %f", i, y[i]);
	printf("y is what it should be\n");
	return 0;
}
