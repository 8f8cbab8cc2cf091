/* The files of catalog/ as they were when the program was built: it plans without any file beside it. The Makefile rebuilds this when one of
 * them changes. */
#include <string.h>

#include "plan/catalog/catalog_parts.h"

#define FILES(X) \
	X(accelerators, "accelerators.yaml") X(nodes, "nodes.yaml") X(networks, "networks.yaml") X(storage, "storage.yaml") X(cooling, "cooling.yaml") \
	X(grids, "grids.yaml") X(lead_times, "lead-times.yaml") X(prices, "prices.yaml") X(models, "models.yaml") \
	X(fits_train, "fits-train.yaml") X(fits_serve, "fits-serve.yaml")

/* The assembler reads the file, from the directory `make` runs in. */
#define X(symbol, file) \
	__asm__(".pushsection .rodata\n" \
	        ".hidden plan_file_" #symbol "\n.hidden plan_end_" #symbol "\n" \
	        ".globl plan_file_" #symbol "\nplan_file_" #symbol ":\n.incbin \"catalog/" file "\"\n" \
	        ".globl plan_end_" #symbol "\nplan_end_" #symbol ":\n.byte 0\n.popsection\n"); \
	extern const char plan_file_##symbol[], plan_end_##symbol[];
FILES(X)
#undef X

const char *plan_catalog_embedded(const char *file, size_t *bytes)
{
	static const struct {
		const char *file, *text, *end;
	} files[] = {
#define X(symbol, file) {file, plan_file_##symbol, plan_end_##symbol},
		FILES(X)
#undef X
	};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		if (!strcmp(files[i].file, file)) {
			*bytes = (size_t)(files[i].end - files[i].text);
			return files[i].text;
		}
	return NULL;
}
