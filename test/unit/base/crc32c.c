/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "test/shim/test.h"

TEST(crc32c, gives_the_check_value_of_the_nine_digits)
{
	EXPECT_EQ_INT(0xe3069283u, base_crc32c(0, "123456789", 9));
}

TEST(crc32c, of_nothing_is_the_crc_so_far)
{
	EXPECT_EQ_INT(0, base_crc32c(0, "", 0));
	EXPECT_EQ_INT(0x12345678u, base_crc32c(0x12345678u, NULL, 0));
}

/* RFC 3720, appendix B.4: its CRC bytes are in transmission order, least significant first. */
TEST(crc32c, gives_the_vectors_of_rfc_3720)
{
	uint8_t buf[32];
	int i;

	memset(buf, 0, sizeof(buf));
	EXPECT_EQ_INT(0x8a9136aau, base_crc32c(0, buf, 32));
	memset(buf, 0xff, sizeof(buf));
	EXPECT_EQ_INT(0x62a8ab43u, base_crc32c(0, buf, 32));
	for (i = 0; i < 32; i++)
		buf[i] = (uint8_t)i;
	EXPECT_EQ_INT(0x46dd794eu, base_crc32c(0, buf, 32));
	for (i = 0; i < 32; i++)
		buf[i] = (uint8_t)(31 - i);
	EXPECT_EQ_INT(0x113fdb5cu, base_crc32c(0, buf, 32));
}

TEST(crc32c, gives_the_rfc_3720_read_command)
{
	static const uint8_t pdu[48] = {
		0x01, 0xc0, 0, 0, 0, 0, 0,    0, 0,    0, 0, 0,    0, 0, 0, 0,
		0x14, 0,    0, 0, 0, 0, 0x04, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
		0x28, 0,    0, 0, 0, 0, 0,    0, 0x02, 0, 0, 0,    0, 0, 0, 0,
	};

	EXPECT_EQ_INT(0xd9963a56u, base_crc32c(0, pdu, sizeof(pdu)));
}

/* Slow and plain, as the definition says. */
static uint32_t crc_bitwise(uint32_t crc, const uint8_t *p, size_t len)
{
	crc = ~crc;
	while (len--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

TEST(crc32c, agrees_with_the_definition_at_every_length_and_alignment)
{
	uint8_t buf[600];

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 167 + i / 7);
	for (size_t start = 0; start < 16; start++)
		for (size_t len = 0; len + start <= sizeof(buf); len += 7)
			ASSERT_EQ_INT(crc_bitwise(0, buf + start, len),
				      base_crc32c(0, buf + start, len));
}

TEST(crc32c, of_two_pieces_chains)
{
	const char *text = "the quick brown fox jumps over the lazy dog";
	size_t len = strlen(text);

	for (size_t cut = 0; cut <= len; cut++)
		EXPECT_EQ_INT(base_crc32c(0, text, len),
			      base_crc32c(base_crc32c(0, text, cut), text + cut, len - cut));
}
