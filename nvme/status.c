/* SPDX-License-Identifier: BSD-2-Clause */
/* What a status means to a person and to a program. */
#include <errno.h>
#include <stdio.h>

#include "base/util.h"
#include "nvme/nvme.h"
#include "nvme/spec.h"

struct status {
	uint16_t code;
	int16_t rc;
	const char *text;
};

static const struct status table[] = {
	{ NVME_SC_SUCCESS, 0, "Successful Completion" },
	{ NVME_SC_INVALID_OPCODE, -EOPNOTSUPP, "Invalid Command Opcode" },
	{ NVME_SC_INVALID_FIELD, -EINVAL, "Invalid Field in Command" },
	{ NVME_SC_CID_CONFLICT, -EIO, "Command ID Conflict" },
	{ NVME_SC_DATA_TRANSFER, -EIO, "Data Transfer Error" },
	{ NVME_SC_POWER_LOSS, -EIO, "Commands Aborted due to Power Loss Notification" },
	{ NVME_SC_INTERNAL, -EIO, "Internal Error" },
	{ NVME_SC_ABORT_REQUESTED, -ETIMEDOUT, "Command Abort Requested" },
	{ NVME_SC_ABORT_SQ_DELETED, -ECANCELED, "Command Aborted due to SQ Deletion" },
	{ NVME_SC_INVALID_NS, -ENODEV, "Invalid Namespace or Format" },
	{ NVME_SC_PRP_OFFSET, -EINVAL, "PRP Offset Invalid" },
	{ NVME_SC_SANITIZE_FAILED, -EIO, "Sanitize Failed" },
	{ NVME_SC_SANITIZE_IN_PROGRESS, -EBUSY, "Sanitize In Progress" },
	{ NVME_SC_NS_WRITE_PROTECTED, -EROFS, "Namespace is Write Protected" },
	{ NVME_SC_INTERRUPTED, -EIO, "Command Interrupted" },
	{ NVME_SC_TRANSIENT, -EIO, "Transient Transport Error" },
	{ NVME_SC_LBA_RANGE, -EINVAL, "LBA Out of Range" },
	{ NVME_SC_CAPACITY, -ENOSPC, "Capacity Exceeded" },
	{ NVME_SC_NS_NOT_READY, -EIO, "Namespace Not Ready" },
	{ NVME_SC_RESERVATION, -EBUSY, "Reservation Conflict" },
	{ NVME_SC_FORMAT_IN_PROGRESS, -EBUSY, "Format In Progress" },
	{ NVME_SC_CQ_INVALID, -EINVAL, "Completion Queue Invalid" },
	{ NVME_SC_QID_INVALID, -EINVAL, "Invalid Queue Identifier" },
	{ NVME_SC_QUEUE_SIZE, -EINVAL, "Invalid Queue Size" },
	{ NVME_SC_ABORT_LIMIT, -EBUSY, "Abort Command Limit Exceeded" },
	{ NVME_SC_VECTOR_INVALID, -EINVAL, "Invalid Interrupt Vector" },
	{ NVME_SC_LOG_PAGE_INVALID, -EINVAL, "Invalid Log Page" },
	{ NVME_SC_FIRMWARE_SLOT, -EINVAL, "Invalid Firmware Slot" },
	{ NVME_SC_FIRMWARE_IMAGE, -EINVAL, "Invalid Firmware Image" },
	{ NVME_SC_FORMAT_INVALID, -EINVAL, "Invalid Format" },
	/* A success of activating firmware alone (nvme_firmware_commit); with any other command it says nothing that helps. */
	{ NVME_SC_FIRMWARE_CONVENTIONAL_RESET, -EIO,
	  "Firmware Activation Requires Conventional Reset" },
	{ NVME_SC_FIRMWARE_SUBSYSTEM_RESET, -EIO,
	  "Firmware Activation Requires NVM Subsystem Reset" },
	{ NVME_SC_FIRMWARE_CONTROLLER_RESET, -EIO,
	  "Firmware Activation Requires Controller Level Reset" },
	{ NVME_SC_FIRMWARE_OVERLAP, -EINVAL, "Overlapping Range" },
	{ NVME_SC_QUEUE_DELETION, -EINVAL, "Invalid Queue Deletion" },
	{ NVME_SC_ATTRIBUTES, -EINVAL, "Conflicting Attributes" },
	{ NVME_SC_PROTECTION, -EINVAL, "Invalid Protection Information" },
	{ NVME_SC_READ_ONLY, -EROFS, "Attempted Write to Read Only Range" },
	{ NVME_SC_WRITE_FAULT, -EIO, "Write Fault" },
	{ NVME_SC_READ_ERROR, -EIO, "Unrecovered Read Error" },
	{ NVME_SC_GUARD, -EILSEQ, "End-to-end Guard Check Error" },
	{ NVME_SC_APPLICATION_TAG, -EILSEQ, "End-to-end Application Tag Check Error" },
	{ NVME_SC_REFERENCE_TAG, -EILSEQ, "End-to-end Reference Tag Check Error" },
	{ NVME_SC_COMPARE, -EILSEQ, "Compare Failure" },
	{ NVME_SC_ACCESS_DENIED, -EACCES, "Access Denied" },
	{ NVME_SC_UNWRITTEN, -EIO, "Deallocated or Unwritten Logical Block" },
};

static const struct status *find(uint16_t status)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].code == status)
			return &table[i];
	return NULL;
}

const char *nvme_status_text(uint16_t status)
{
	static _Thread_local char text[80];
	static const char *const types[8] = { "Generic",  "Command Specific", "Media",
					      "Path",     "Reserved",         "Reserved",
					      "Reserved", "Vendor Specific" };
	const struct status *s = find(status);

	snprintf(text, sizeof(text), "%s%s (%x/%02x)", s ? s->text : types[status >> 8 & 7],
		 s ? "" : " Status", status >> 8 & 7, status & 0xff);
	return text;
}

int nvme_status_errno(uint16_t status)
{
	const struct status *s = find(status);

	return s ? s->rc : -EIO;
}
