/* Frames as a stranger or a broken peer may send them: whatever is accepted is safe to use. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "comm/lifeline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lifeline_frame f;
	for (; size >= sizeof f; data += sizeof f, size -= sizeof f) {
		memcpy(&f, data, sizeof f);
		if (!stave_lifeline_frame_check(&f, 4))
			continue;
		if (f.rank >= 4 || f.how >= LIFELINE_HOWS || f.type < LIFELINE_HELLO || f.type > LIFELINE_BYE || f.seq < 0)
			abort();
		for (size_t i = 0; f.type != LIFELINE_HELLO && f.op[i]; i++)
			if (i >= LIFELINE_OP - 1 || f.op[i] < ' ' || f.op[i] > '~')
				abort();
	}
	return 0;
}
