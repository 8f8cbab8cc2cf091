/* GGUF names what comes before byte-level merges by `tokenizer.ggml.pre`: a word for a list of patterns, each of which cuts the
 * pieces of the one before (Isolated), and a few habits. The patterns are those of the models' own tokenizer.json files, from
 * which the names were given. Where the usual reader of such files only comes near (it has no character properties), the
 * model's own pattern is taken: a model reads the ids it was trained on.
 *
 * A name that is not here is refused by the caller. Several names may mean the same; the first one that fits is written. */
#include "text/tokenizer.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LLAMA3 "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN2 "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN35 "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/* words by case: capitals then small letters; letters without case and marks count as either */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define REST " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TEKKEN "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*|\\p{N}|" REST
#define O200K "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" CONTRACTIONS "?|\\p{N}{1,3}|" REST
/* the same without Han, which forms words of its own; Kimi's file says it by intersection of classes, which PCRE2 lacks */
#define NO_HAN "(?!\\p{sc:Han})"
#define KIMI "\\p{sc:Han}+|[^\\r\\n\\p{L}\\p{N}]?(?:" NO_HAN UPPER ")*(?:" NO_HAN LOWER ")+" CONTRACTIONS "?" \
	"|[^\\r\\n\\p{L}\\p{N}]?(?:" NO_HAN UPPER ")+(?:" NO_HAN LOWER ")*" CONTRACTIONS "?" \
	"|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define DEEPSEEK_CJK "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-\xed\x9f\xbf]+"
#define DEEPSEEK3_CJK "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+"
#define DEEPSEEK3 "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
/* white space, then punctuation of ASCII, full width and the General Punctuation block */
#define DEEPSEEK_MARKS "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+"
/* white space, then letters of the scripts that have case */
static const char deepseek_letters[] =
	"\\s?[A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}\\x{295}-\\x{2af}"
	"\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-"
	"\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}"
	"\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}"
	"\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-"
	"\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}"
	"\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}"
	"\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-"
	"\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}"
	"\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}"
	"\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"
	"\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-"
	"\\x{1e943}]+";

static const struct text_pre table[] = {
	{.name = "llama-bpe", .pattern = {LLAMA3}, .ignore_merges = true, .bos = true},
	{.name = "llama3", .pattern = {LLAMA3}, .ignore_merges = true, .bos = true},
	{.name = "smaug-bpe", .pattern = {LLAMA3}},
	{.name = "dbrx", .pattern = {LLAMA3}},
	{.name = "glm4", .pattern = {LLAMA3}},
	{.name = "chatglm-bpe", .pattern = {LLAMA3}},
	{.name = "gpt-2", .pattern = {GPT2}},
	{.name = "phi-2", .pattern = {GPT2}},
	{.name = "mpt", .pattern = {GPT2}, .nfc = true}, /* GPT-NeoX's tokenizer, as is OLMo's */
	{.name = "olmo", .pattern = {GPT2}, .nfc = true},
	{.name = "qwen2", .pattern = {QWEN2}, .nfc = true},
	{.name = "deepseek-r1-qwen", .pattern = {QWEN2}, .nfc = true},
	{.name = "stablelm2", .pattern = {QWEN2}},
	{.name = "qwen35", .pattern = {QWEN35}, .nfc = true},
	{.name = "starcoder", .pattern = {"\\p{N}", GPT2}},
	{.name = "refact", .pattern = {"\\p{N}", GPT2}},
	{.name = "smollm", .pattern = {"\\p{N}", GPT2}},
	{.name = "command-r", .pattern = {"\\p{N}", GPT2}, .nfc = true},
	{.name = "tekken", .pattern = {TEKKEN}, .ignore_merges = true, .bos = true},
	{.name = "gpt-4o", .pattern = {O200K}},
	{.name = "llama4", .pattern = {O200K}},
	{.name = "kimi-k2", .pattern = {KIMI}},
	{.name = "bloom", .pattern = {text_pattern_bloom}},
	{.name = "deepseek-llm", .pattern = {"[\r\n]", deepseek_letters, DEEPSEEK_MARKS, "\\s+$", DEEPSEEK_CJK, "\\p{N}+"}},
	{.name = "deepseek-coder", .pattern = {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", DEEPSEEK_CJK, "\\p{N}"}},
	{.name = "deepseek-v3", .pattern = {"\\p{N}{1,3}", DEEPSEEK3_CJK, DEEPSEEK3}},
	{.name = "falcon", .pattern = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
	{.name = "default", .pattern = {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
	{.name = "gemma4", .pattern = {"[^\\n]+|[\\n]+"}, .bos = true, .raw = true},
};

const struct text_pre *text_pre_find(const char *name)
{
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (!strcmp(table[i].name, name))
			return &table[i];
	return NULL;
}

static bool same_patterns(const struct text_pre *pre, const struct stave_tokenizer *t)
{
	int n = 0;
	for (; n < TEXT_PRE_PATTERNS && pre->pattern[n]; n++) {
		const char *p = pre->pattern[n];
		if (n >= t->n_splits || t->split[n].invert || t->split[n].behavior != TEXT_ISOLATED || t->pattern[n].n != strlen(p) || memcmp(t->blob.p + t->pattern[n].at, p, strlen(p)))
			return false;
	}
	return n == t->n_splits;
}

const struct text_pre *text_pre_of(const struct stave_tokenizer *t)
{
	bool nfc = t->n_ops == 1 && t->op[0].kind == TEXT_OP_FORM && t->op[0].form == TEXT_NFC;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		const struct text_pre *pre = &table[i];
		if (!pre->raw && t->byte_level && pre->nfc == nfc && (nfc || !t->n_ops) && pre->ignore_merges == t->ignore_merges && same_patterns(pre, t))
			return pre;
	}
	return NULL;
}
