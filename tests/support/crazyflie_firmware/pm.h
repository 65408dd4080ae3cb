#pragma once

float pmGetBatteryVoltage(void);
