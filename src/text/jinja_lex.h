/* Private to the parser of templates (jinja_parse.c): where it stands in the source, and the tokens inside a tag (jinja_lex.c). */
#ifndef STAVE_TEXT_JINJA_LEX_H
#define STAVE_TEXT_JINJA_LEX_H

#include "text/jinja.h"

enum token_kind { T_END, T_NAME, T_STRING, T_INT, T_FLOAT, T_OP };
struct parser {
	struct jinja_memory *m;
	const char *source, *p, *end; /* the whole; what is left */
	/* the current token inside a tag */
	enum token_kind kind;
	struct jinja_value value; /* STRING, INT, FLOAT; NAME and OP as a string */
	const char *close;      /* "%}" or "}}" of the open tag */
	bool trim_newline;      /* after the tag just closed */
	bool strip_left;        /* it closed with -: the next text loses leading white space */
	const struct jinja_string *stop; /* the end tag's name that ended a body */
};
/* Reads the next token; T_END at the tag's end, which is consumed with its white space control. */
void lex_next(struct parser *p);
/* Whether this operator or name is the current token. */
bool lex_at_op(const struct parser *p, const char *s);
bool lex_at_name(const struct parser *p, const char *s);
/* It is, and is consumed. */
bool lex_accept(struct parser *p, enum token_kind kind, const char *s);
/* It must be, and is consumed; the tag's end was consumed as it was read. */
void lex_expect(struct parser *p, const char *op);
const struct jinja_string *lex_expect_name(struct parser *p);
void lex_expect_end(struct parser *p);

#endif
