// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
/*
 * A driver for the Ersatz GPU to begin with: brings up one channel, copies a page to VRAM and back when it is bound, and waits for the
 * interrupt of that.
 *
 * The names in brackets are chapters of device-model/MANUAL.md. The numbers of the device are in ersatz_device.h.
 */
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/iopoll.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "ersatz_device.h"

/* The channel that is used, and its interrupt; vector 0 is that of device errors. */
#define CHANNEL 0
#define VECTOR 1
/* Base-2 logarithm of the ring's length in commands: the shortest. */
#define RING_ORDER ERSATZ_RING_ORDER_MIN
/* What word N of the page holds is this, exclusive-or N. */
#define PATTERN 0x0123456789abcdefULL
/* What is copied in bytes, and in words. */
#define BYTES 4096
#define WORDS (BYTES / sizeof(u64))
/* How long the device may take for anything that is done here, in microseconds. */
#define PATIENCE_US 1000000

/* Memory that the device reads and writes. Ring and control block begin a page. */
struct memory {
	u64 ring[WORDS];
	u8 control_block[ERSATZ_CONTROL_BLOCK_SIZE];
	u64 there[WORDS];
	u64 back[WORDS];
	u64 list[2][ERSATZ_LIST_ENTRY_BYTES / sizeof(u64)];
};

struct NAME {
	struct pci_dev *pdev;
	void __iomem *registers;
	struct memory *memory;
	dma_addr_t bus;
	struct completion done;
};

#define BUS(gpu, member) ((gpu)->bus + offsetof(struct memory, member))

static irqreturn_t NAME_interrupt(int irq, void *cookie)
{
	struct NAME *gpu = cookie;

	complete(&gpu->done);
	return IRQ_HANDLED;
}

/* Resets the device, and waits until that is done. */
static int NAME_reset(struct NAME *gpu)
{
	void __iomem *control = gpu->registers + ERSATZ_CONTROL;
	u32 value;

	writel(ERSATZ_CONTROL_RESET_MASK << ERSATZ_CONTROL_RESET_SHIFT, control);
	return readl_poll_timeout(control, value, value == 0, 10, PATIENCE_US);
}

/* [Bringing up a channel] */
static void NAME_enable_channel(struct NAME *gpu)
{
	void __iomem *registers = gpu->registers;

	writeq(BUS(gpu, ring), registers + ERSATZ_CHANNEL_RING_BASE(CHANNEL));
	writeq(BUS(gpu, control_block), registers + ERSATZ_CHANNEL_CONTROL_BLOCK(CHANNEL));
	writel(RING_ORDER, registers + ERSATZ_CHANNEL_RING_ORDER(CHANNEL));
	writel(VECTOR, registers + ERSATZ_CHANNEL_VECTOR(CHANNEL));
	/* The first copy engine. */
	writel(0, registers + ERSATZ_CHANNEL_ENGINE(CHANNEL));
	writel(ERSATZ_CHANNEL_CONTROL_ENABLE_MASK << ERSATZ_CHANNEL_CONTROL_ENABLE_SHIFT,
	       registers + ERSATZ_CHANNEL_CONTROL(CHANNEL));
}

/* [Lists] */
static void NAME_set_entry(u64 *entry, u64 source, u64 source_aperture, u64 destination, u64 destination_aperture)
{
	entry[0] = source;
	entry[1] = destination;
	entry[2] = (u64)BYTES << ERSATZ_ENTRY_LENGTH_SHIFT | source_aperture << ERSATZ_ENTRY_SOURCE_SHIFT |
		   destination_aperture << ERSATZ_ENTRY_DESTINATION_SHIFT;
	entry[3] = 0;
}

/* Copies a page to VRAM and back, by one command. */
static int NAME_copy_there_and_back(struct NAME *gpu)
{
	struct memory *memory = gpu->memory;
	struct device *dev = &gpu->pdev->dev;
	unsigned int index;

	for (index = 0; index < WORDS; index++)
		memory->there[index] = PATTERN ^ index;
	NAME_set_entry(memory->list[0], BUS(gpu, there), ERSATZ_APERTURE_SYSTEM, 0, ERSATZ_APERTURE_VRAM);
	NAME_set_entry(memory->list[1], 0, ERSATZ_APERTURE_VRAM, BUS(gpu, back), ERSATZ_APERTURE_SYSTEM);

	NAME_enable_channel(gpu);
	/* [Commands] */
	memory->ring[0] = (u64)ERSATZ_OPCODE_COPY << ERSATZ_COMMAND_OPCODE_SHIFT |
			  1ULL << ERSATZ_COMMAND_FENCE_SHIFT | 1ULL << ERSATZ_COMMAND_INTERRUPT_SHIFT |
			  2ULL << ERSATZ_COMMAND_COUNT_SHIFT;
	memory->ring[1] = 1;
	memory->ring[2] = BUS(gpu, list);
	/* The device must not see PUT before the command. */
	dma_wmb();
	WRITE_ONCE(*(u32 *)(memory->control_block + ERSATZ_CONTROL_BLOCK_PUT), 1);
	writel(0, gpu->registers + ERSATZ_DOORBELL(CHANNEL));

	if (!wait_for_completion_timeout(&gpu->done, usecs_to_jiffies(PATIENCE_US)) ||
	    READ_ONCE(*(u64 *)(memory->control_block + ERSATZ_CONTROL_BLOCK_FENCE)) < 1) {
		dev_err(dev, "the copy is not done; CHANNEL_STATUS is %#x [Errors]\n",
			readl(gpu->registers + ERSATZ_CHANNEL_STATUS(CHANNEL)));
		return -EIO;
	}
	dma_rmb();
	for (index = 0; index < WORDS; index++) {
		if (memory->back[index] != (PATTERN ^ index)) {
			dev_err(dev, "word %u came back as %#llx\n", index, memory->back[index]);
			return -EIO;
		}
	}
	dev_info(dev, "copied %u bytes to VRAM and back, by an interrupt\n", BYTES);
	return 0;
}

/* After this the device accesses no memory. */
static void NAME_leave(struct NAME *gpu)
{
	if (NAME_reset(gpu))
		dev_err(&gpu->pdev->dev, "the reset does not end\n");
	pci_clear_master(gpu->pdev);
}

static int NAME_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct NAME *gpu;
	int error;

	gpu = devm_kzalloc(&pdev->dev, sizeof(*gpu), GFP_KERNEL);
	if (!gpu)
		return -ENOMEM;
	gpu->pdev = pdev;
	init_completion(&gpu->done);
	pci_set_drvdata(pdev, gpu);

	/* [Bringing up the device] */
	error = pcim_enable_device(pdev);
	if (error)
		return error;
	gpu->registers = pcim_iomap_region(pdev, ERSATZ_BAR_REGISTERS, "NAME");
	if (IS_ERR(gpu->registers))
		return PTR_ERR(gpu->registers);
	error = NAME_reset(gpu);
	if (error)
		return error;
	error = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (error)
		return error;
	gpu->memory = dmam_alloc_coherent(&pdev->dev, sizeof(*gpu->memory), &gpu->bus, GFP_KERNEL);
	if (!gpu->memory)
		return -ENOMEM;
	pci_set_master(pdev);
	error = pci_alloc_irq_vectors(pdev, VECTOR + 1, VECTOR + 1, PCI_IRQ_MSIX);
	if (error < 0)
		goto leave;
	error = request_irq(pci_irq_vector(pdev, VECTOR), NAME_interrupt, 0, "NAME", gpu);
	if (error)
		goto free_vectors;
	error = NAME_copy_there_and_back(gpu);
	if (!error)
		return 0;

	NAME_leave(gpu);
	free_irq(pci_irq_vector(pdev, VECTOR), gpu);
free_vectors:
	pci_free_irq_vectors(pdev);
leave:
	NAME_leave(gpu);
	return error;
}

static void NAME_remove(struct pci_dev *pdev)
{
	struct NAME *gpu = pci_get_drvdata(pdev);

	NAME_leave(gpu);
	free_irq(pci_irq_vector(pdev, VECTOR), gpu);
	pci_free_irq_vectors(pdev);
}

static const struct pci_device_id NAME_ids[] = {
	{ PCI_DEVICE(ERSATZ_VENDOR_ID, ERSATZ_DEVICE_ID) },
	{}
};
MODULE_DEVICE_TABLE(pci, NAME_ids);

static struct pci_driver NAME_driver = {
	.name = "NAME",
	.id_table = NAME_ids,
	.probe = NAME_probe,
	.remove = NAME_remove,
};
module_pci_driver(NAME_driver);

MODULE_DESCRIPTION("A driver for the Ersatz GPU");
MODULE_LICENSE("GPL");
