/* SPDX-License-Identifier: BSD-2-Clause */
#include "test/powercut/rocksdb_model.h"

#include <algorithm>

uint64_t DatabaseModel::Begin(std::vector<Change> changes, uint64_t event)
{
	batches_.push_back({ std::move(changes), event });
	return batches_.size();
}

void DatabaseModel::Durable(uint64_t number, uint64_t event)
{
	promises_.push_back({ number, event });
}

uint64_t DatabaseModel::Least(uint64_t event) const
{
	uint64_t least = 0;

	for (const Promise &p : promises_)
		if (p.event <= event)
			least = std::max(least, p.number);
	return least;
}

uint64_t DatabaseModel::Most(uint64_t event) const
{
	uint64_t most = 0;

	while (most < batches_.size() && batches_[most].begun <= event)
		most++;
	return most;
}

/* Says whose it is and when it was written, again and again, so that foreign bytes are seen wherever they are. */
std::string DatabaseModel::Value(const std::string &key, uint64_t number, uint64_t length)
{
	std::string unit = key + "#" + std::to_string(number) + "/" + std::to_string(length) + ";", value;

	while (value.size() < length)
		value += unit;
	value.resize(length);
	return value;
}

std::map<std::string, std::string> DatabaseModel::After(uint64_t number) const
{
	std::map<std::string, std::string> all;

	for (uint64_t n = 1; n <= number; n++)
		for (const Change &c : batches_[n - 1].changes) {
			std::string key = (c.second ? kSecond : "") + c.key;

			if (c.length)
				all[key] = Value(key, n, c.length);
			else
				all.erase(key);
		}
	if (number)
		all[kNumber] = std::to_string(number);
	return all;
}
