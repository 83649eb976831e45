/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/nvme/verb.h"
