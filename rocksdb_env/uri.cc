/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parser of blobfs://DEVICE[?option[&option]…].
 *
 * An option is NAME, NAME=VALUE or NAME:VALUE: RocksDB takes a URI with '=' in --env_uri for an
 * option map, so ':' says the same there. Options are separated by '&' or ','. %XX stands for a
 * byte in the device and in values. What is unknown, given twice or without sense is refused by
 * name: a mistyped option must not be taken for its default.
 */
#include <cstring>
#include <set>

#include "base/util.h"
#include "rocksdb_env/internal.h"

namespace blobfs {

namespace {

const char kScheme[] = "blobfs://";

int HexDigit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool Decode(const std::string &in, std::string *out, std::string *why)
{
	out->clear();
	for (size_t i = 0; i < in.size(); i++) {
		if (in[i] != '%') {
			out->push_back(in[i]);
			continue;
		}
		int high = i + 2 < in.size() ? HexDigit(in[i + 1]) : -1;
		int low = high >= 0 ? HexDigit(in[i + 2]) : -1;

		if (low < 0 || (high == 0 && low == 0)) {
			*why = "blobfs: '%' in '" + in +
			       "' is not followed by the two digits of a byte (%25 is '%')";
			return false;
		}
		out->push_back(static_cast<char>(high * 16 + low));
		i += 2;
	}
	return true;
}

bool ParseBytes(const std::string &name, const std::string &value, uint64_t *bytes,
		std::string *why)
{
	if (!base_parse_size(value.c_str(), bytes) && *bytes)
		return true;
	*why = "blobfs: option '" + name + "' wants a size like 512M, not '" + value + "'";
	return false;
}

bool ParseFlag(const std::string &name, bool has_value, bool *flag, std::string *why)
{
	*flag = true;
	if (has_value)
		*why = "blobfs: option '" + name + "' takes no value";
	return !has_value;
}

bool ParseOption(const std::string &text, Uri *uri, std::set<std::string> *seen, std::string *why)
{
	size_t split = text.find_first_of("=:");
	bool has_value = split != std::string::npos;
	std::string name = text.substr(0, split), value;

	if (has_value && !Decode(text.substr(split + 1), &value, why))
		return false;
	if (!seen->insert(name).second) {
		*why = "blobfs: option '" + name + "' is given twice";
		return false;
	}
	if (name == "readonly" || name == "ro")
		return ParseFlag(name, has_value, &uri->readonly, why);
	if (name == "discard")
		return ParseFlag(name, has_value, &uri->discard, why);
	if (name == "noatime")
		return ParseFlag(name, has_value, &uri->noatime, why);
	if (name != "cache" && name != "dirty" && name != "mount") {
		*why = "blobfs: unknown option '" + name +
		       "' (known: cache=SIZE, dirty=SIZE, mount=DIR, readonly, discard, noatime)";
		return false;
	}
	if (value.empty()) {
		*why = "blobfs: option '" + name + "' needs a value";
		return false;
	}
	if (name == "mount") {
		uri->mount = value;
		return true;
	}
	return ParseBytes(name, value, name == "cache" ? &uri->cache : &uri->dirty, why);
}

} // namespace

bool ParseUri(const std::string &text, Uri *uri, std::string *why)
{
	std::set<std::string> seen;
	size_t at = sizeof(kScheme) - 1, query;

	if (text.compare(0, at, kScheme) != 0) {
		*why = "blobfs: '" + text + "' does not begin with " + kScheme;
		return false;
	}
	query = text.find('?', at);
	if (!Decode(text.substr(at, query == std::string::npos ? query : query - at), &uri->device,
		    why))
		return false;
	if (uri->device.empty()) {
		*why = "blobfs: '" + text + "' names no device (blobfs:///path/to/image)";
		return false;
	}
	while (query != std::string::npos) {
		size_t end = text.find_first_of("&,", query + 1);
		std::string option = text.substr(query + 1,
						 end == std::string::npos ? end : end - query - 1);

		if (!option.empty() && !ParseOption(option, uri, &seen, why))
			return false;
		query = end;
	}
	return true;
}

} // namespace blobfs
