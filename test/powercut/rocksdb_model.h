/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Level 3's model. Every write of the database is one batch with a number of its own in it. After a cut the database must be what the
 * first P batches made, for one P: all of each or nothing, none missing between. P is the number it holds; it covers what had been
 * acknowledged as durable, and goes no further than what had been begun.
 */
#ifndef TEST_POWERCUT_ROCKSDB_MODEL_H
#define TEST_POWERCUT_ROCKSDB_MODEL_H

#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct Change {
	bool second;         /* in the second column family */
	std::string key;
	uint64_t length = 0; /* of the value; 0: deleted */
};

class DatabaseModel {
public:
	/* The next batch, before it is written. Its number, from 1 on. */
	uint64_t Begin(std::vector<Change> changes, uint64_t event);
	/* Everything up to this batch was said to be durable when `event` had happened. */
	void Durable(uint64_t number, uint64_t event);
	uint64_t last() const { return batches_.size(); }

	/* The least and the most batches there may be after a cut at this event. */
	uint64_t Least(uint64_t event) const;
	uint64_t Most(uint64_t event) const;
	/* Both column families (the second's keys behind kSecond), as the first `number` batches make them. */
	std::map<std::string, std::string> After(uint64_t number) const;

	static std::string Value(const std::string &key, uint64_t number, uint64_t length);
	static constexpr const char *kSecond = "2/";
	static constexpr const char *kNumber = "number"; /* the key, in the first column family */

private:
	struct Batch {
		std::vector<Change> changes;
		uint64_t begun;
	};
	struct Promise {
		uint64_t number, event;
	};
	std::vector<Batch> batches_;
	std::vector<Promise> promises_;
};

#endif
