/* cmocka of Debian 12 compares floats only as float. */
#ifndef TEST_NEAR_H
#define TEST_NEAR_H

#include <math.h>

#define assert_near(have, want, tolerance)                                                                        \
	do {                                                                                                      \
		double have_ = (have), want_ = (want), tolerance_ = (tolerance);                                  \
		if (!(fabs(have_ - want_) <= tolerance_))                                                         \
			fail_msg("%s is %.9g, expected %.9g within %g", #have, have_, want_, tolerance_);         \
	} while (0)

#endif
