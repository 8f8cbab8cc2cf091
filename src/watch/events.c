/* TensorBoard event files, written by hand: the format is a few fields of two protobuf messages in a simple framing.
 *
 *   record   u64 length | u32 masked CRC-32C of these 8 bytes | payload | u32 masked CRC-32C of the payload (TFRecord)
 *   masked   rotate right by 15, add 0xa282ead8, so that a CRC of data holding CRCs stays sound
 *   Event    1: wall_time double   2: step int64   3: file_version string   5: summary Summary
 *                                                                     7: session_log SessionLog
 *   SessionLog  1: status, START = 1: TensorBoard forgets what it has read of this step and later
 *   Summary  1: value Value, repeated          Value  1: tag string   2: simple_value float
 *
 * A protobuf field is a key, number * 8 + wire type (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes), then the
 * value. Every number is little-endian. The first record is the version "brain.Event:2". */
#include "watch/events.h"

#include <string.h>

#include "base/fs.h"

uint32_t stave_crc32c(const void *p, size_t n)
{
	const unsigned char *b = p;
	uint32_t crc = 0xffffffffu;
	for (size_t i = 0; i < n; i++) { /* bit by bit: a few hundred bytes per step do not deserve a table */
		crc ^= b[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void little(unsigned char *to, uint64_t x, int bytes)
{
	for (int i = 0; i < bytes; i++)
		to[i] = (unsigned char)(x >> 8 * i);
}

static uint32_t masked(const void *p, size_t n)
{
	uint32_t crc = stave_crc32c(p, n);
	return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void put_varint(struct stave_buf *b, uint64_t x)
{
	unsigned char out[10];
	size_t n = 0;
	for (; x >= 0x80; x >>= 7)
		out[n++] = (unsigned char)(x | 0x80);
	out[n++] = (unsigned char)x;
	stave_buf_put(b, out, n);
}

static void put_fixed(struct stave_buf *b, int field, const void *value, int bytes)
{
	uint64_t x = 0;
	unsigned char out[8];
	if (bytes == 8)
		memcpy(&x, value, 8);
	else {
		uint32_t y;
		memcpy(&y, value, 4);
		x = y;
	}
	little(out, x, bytes);
	put_varint(b, (uint64_t)field << 3 | (bytes == 8 ? 1 : 5));
	stave_buf_put(b, out, (size_t)bytes);
}

static void put_bytes(struct stave_buf *b, int field, const void *p, size_t n)
{
	put_varint(b, (uint64_t)field << 3 | 2);
	put_varint(b, n);
	stave_buf_put(b, p, n);
}

static int put_record(FILE *f, const struct stave_buf *event, struct stave_err *err)
{
	unsigned char head[12], tail[4];
	little(head, event->len, 8);
	little(head + 8, masked(head, 8), 4);
	little(tail, masked(event->p, event->len), 4);
	if (fwrite(head, 1, 12, f) != 12 || fwrite(event->p, 1, event->len, f) != event->len || fwrite(tail, 1, 4, f) != 4)
		return stave_err_errno(err, "cannot write the TensorBoard event file");
	return 0;
}

int stave_events_version(FILE *f, double time_s, struct stave_err *err)
{
	static const char version[] = "brain.Event:2";
	struct stave_buf event = {0};
	put_fixed(&event, 1, &time_s, 8);
	put_bytes(&event, 3, version, sizeof version - 1);
	int rc = put_record(f, &event, err);
	stave_buf_free(&event);
	return rc;
}

int stave_events_session(FILE *f, double time_s, int64_t step, struct stave_err *err)
{
	static const unsigned char start[] = {1 << 3 | 0, 1};
	struct stave_buf event = {0};
	put_fixed(&event, 1, &time_s, 8);
	put_varint(&event, 2 << 3 | 0);
	put_varint(&event, (uint64_t)step);
	put_bytes(&event, 7, start, sizeof start);
	int rc = put_record(f, &event, err);
	stave_buf_free(&event);
	return rc;
}

int stave_events_scalars(FILE *f, double time_s, int64_t step, const struct scalar_tag *s, int n, struct stave_err *err)
{
	struct stave_buf event = {0}, summary = {0}, value = {0}, tag = {0};
	for (int i = 0; i < n; i++) {
		value.len = tag.len = 0;
		stave_buf_printf(&tag, "%s%s%s", s[i].group ? s[i].group : "", s[i].group ? "/" : "", s[i].name);
		put_bytes(&value, 1, tag.p, tag.len);
		put_fixed(&value, 2, &s[i].value, 4);
		put_bytes(&summary, 1, value.p, value.len);
	}
	put_fixed(&event, 1, &time_s, 8);
	put_varint(&event, 2 << 3 | 0);
	put_varint(&event, (uint64_t)step);
	put_bytes(&event, 5, summary.p, summary.len);
	int rc = put_record(f, &event, err);
	stave_buf_free(&event);
	stave_buf_free(&summary);
	stave_buf_free(&value);
	stave_buf_free(&tag);
	return rc;
}
